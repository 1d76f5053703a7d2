"""What `import gdd` offers to a script or a notebook: sets, generators, distilling and scoring."""
