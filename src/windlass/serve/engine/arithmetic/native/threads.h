// Work shared among a few threads.
#pragma once
#include <functional>

// Calls work(0) ... work(count - 1), in any order, on this thread and on those that are free to help; returns when all
// is done. From several threads at once, one of them gets help.
void share(long count, const std::function<void(long)>& work);

// How many threads work together at most.
long threads();
