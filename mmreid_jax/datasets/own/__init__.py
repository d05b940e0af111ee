"""Data sets made of anybody's folder of images or table: ``own:NAME``.

`tree` lists a folder and `table` a CSV file; `arrange` makes samples of the images, numbers identities and cameras and
draws the splits; `description` says what the result is, as a data set like any other; `making` does all of it.
"""
