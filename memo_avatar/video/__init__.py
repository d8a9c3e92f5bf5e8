"""Generated frames -> a video file: pasted into the picture, at another rate, with the sound."""
