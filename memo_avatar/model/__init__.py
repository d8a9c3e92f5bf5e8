"""The nets. They import torch alone; layers and the attention function are passed in."""
