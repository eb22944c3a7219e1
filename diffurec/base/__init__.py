"""What every room stands on: whole numbers, random streams, files written whole, one process or several."""
