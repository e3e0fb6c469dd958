"""The op package of the tutorial: MAX compiles this folder, and finds what this file imports."""

from .conv1d import Conv1D
