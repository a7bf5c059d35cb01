"""The convex programs of the papers in cvxpy, by which the fast solvers are tested."""
