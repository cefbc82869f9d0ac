"""The pages, one module for each part of the menu; `menu` has them all."""
