"""Images, sound and video from a prompt: `media("fal:fal-ai/flux/dev").make("A windlass at dusk")`."""

from windlass.apply.media.known import media

__all__ = ["media"]
