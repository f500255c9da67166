"""The commands that are more than a few lines; ``act/cli.py`` names them all."""
