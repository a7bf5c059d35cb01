"""Small helpers that are about no mathematics of ours."""
