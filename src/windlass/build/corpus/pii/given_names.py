"""Common given names of some twenty languages, from general knowledge.

Left out are those that are words or places more often than people in running text (Will, Grace, Victoria, Jordan). The
list is short on purpose: it lets a rule see that "Laura Carvalho" is a person, and claims nothing about other names.
"""

from __future__ import annotations

_NAMES = """
Aaron Abdul Abigail Adam Adrian Agnes Ahmed Aisha Alan Albert Alejandro Alessandro Alex Alexander Alexandra Alexei
Alfred Ali Alice Alicia Alison Amanda Amelia Amir Amy Ana Anastasia Anders Andrea Andreas Andrei Andrew Andrzej Angela
Anita Ann Anna Anne Annika Antoine Anton Antonio Arthur Astrid Aurora Barbara Beatrice Benjamin Bernard Beth Bettina
Birgit Björn Bojan Boris Brandon Brenda Brian Brigitte Bruno Bryan Camille Carina Carl Carla Carlos Carmen Carol
Caroline Catherine Cecilia Cédric Celine Charles Chiara Chloe Chris Christian Christina Christine Christoph Christophe
Christopher Claire Clara Claudia Colin Connor Craig Cristina Cynthia Dániel Daniel Daniela David Deborah Denis Dennis
Derek Diana Diego Dieter Dimitri Dmitri Dominik Donald Donna Dorothy Douglas Dylan Edith Eduardo Edward Elena Elisa
Elisabeth Elizabeth Ella Ellen Emilia Emily Emma Eric Erica Erik Ernst Esther Ethan Eugene Eva Evelyn Fabio Fatima
Federico Felix Fernando Fiona Francesca Francesco Francis Francisco Françoise Frederik Friedrich Gabriel Gabriela
Gareth Gary Geoffrey George Gerald Gerhard Giovanni Giulia Giuseppe Gladys Gordon Graham Greta Guido Guillaume Gustav
Hamza Hannah Hans Harald Harold Harry Hassan Heather Heidi Heinrich Helen Helena Helga Henri Henrik Henry Hiroshi
Holly Howard Hugo Hussein Ian Ibrahim Igor Ines Ingrid Irene Irina Isabel Isabella Ivan Jacek Jack Jacob Jacqueline
Jacques Jakob James Jamie Jan Jane Janet Jason Javier Jean Jeffrey Jennifer Jens Jeremy Jerzy Jessica Jesús Joan
Joanna João Joel Johan Johann Johannes John Jonas Jonathan Jorge José Joseph Joshua Juan Judith Julia Julian Julie
Jürgen Justin Karen Karim Karin Karl Katarina Kate Katherine Kathleen Kathryn Katja Katrin Keith Kelly Kenneth Kenji
Kevin Kimberly Klaus Krzysztof Lars Laura Lauren Laurent Lena Leonardo Leonie Liam Linda Lisa Logan Louis Louise Luca
Lucas Lucia Luis Luisa Łukasz Maciej Magdalena Magnus Maja Malcolm Manuel Marc Marcel Marcin Marco Margaret Maria
María Marie Mario Marion Markus Marta Martha Martin Martina Mary Mateusz Matteo Matthew Matthias Maurice Maximilian
Megan Mehmet Melanie Melissa Michael Michał Michel Michelle Miguel Mikael Mikhail Milan Mohamed Mohammed Monica Monika
Muhammad Mustafa Nadia Nancy Naomi Natalia Natalie Natasha Nathan Nicholas Nicolas Nicole Niels Nikolai Nils Nina Noah
Nora Olaf Olga Oliver Olivia Olivier Omar Oscar Oskar Pablo Pamela Patricia Patrick Paul Paula Paulo Pavel Pedro Peter
Petra Philip Philipp Pierre Piotr Priya Rachel Rafael Rahul Rajesh Ralph Raymond Rebecca Renate René Ricardo Richard
Robert Roberto Roger Roland Ronald Ruth Ryan Sabine Samantha Samuel Sandra Sara Sarah Scott Sean Sebastian Sergei
Sergio Sharon Silvia Simon Simone Sofia Sofie Sonia Sophia Sophie Stefan Stefania Stephan Stephanie Stephen Steven
Stuart Susan Susanne Suzanne Svetlana Sven Sylvia Takashi Tamara Tanja Tatiana Teresa Theodore Theresa Thomas Timothy
Tobias Tomasz Tommaso Ulrich Ursula Valentina Valeria Vanessa Vasily Vera Veronica Viktor Vincent Vladimir Walter
Werner Wilhelm William Wolfgang Xavier Yasmin Yuki Yusuf Yvonne Zoe Zoltán Zsófia
"""
GIVEN_NAMES = frozenset(_NAMES.split())
