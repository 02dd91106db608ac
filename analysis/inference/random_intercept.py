"""Linear model with one random intercept: REML, and F and t tests after Kenward and Roger.

statsmodels has neither the finite-sample tests nor a fit that is exact at the edge (no variance between units), and
with few units both decide the answer: R's ARTool and emmeans use them. Kenward and Roger, 1997, Biometrics 53, 983.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.inference.sample import Floats
from contract.errors import UsageError

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class FTest:
    """A test of q linear combinations of the coefficients.

    Attributes:
        f: statistic.
        df: q.
        df_residual: denominator degrees of freedom; not always whole.
        p_value: of F.
    """

    f: float
    df: int
    df_residual: float
    p_value: float


@dataclass(frozen=True)
class TTest:
    """A test of one linear combination.

    Attributes:
        estimate: of the combination.
        standard_error: of it.
        df: degrees of freedom; not always whole.
        t: estimate / standard_error.
        p_value: two-sided.
    """

    estimate: float
    standard_error: float
    df: float
    t: float
    p_value: float


@dataclass(frozen=True)
class RandomIntercept:
    """A fitted model y = X b + u[unit] + e.

    Attributes:
        coefficients: b, (p,).
        variance_unit: of u; None without a random intercept, 0 at the edge.
        variance_residual: of e; 0 where the rows of every unit are equal, so that the unit means alone count.
        n_rows: rows of X.
        n_units: distinct units; rows where there is no random intercept.
        df_error: rows less p, or units less p where the unit means alone count; else not used.
        covariance: of the coefficients, (p, p), not adjusted.
        covariance_adjusted: after Kenward and Roger, (p, p).
        information_inverse: (2, 2), approximate covariance of the two variances; empty where df_error is used.
        derivative: the two P matrices of Kenward and Roger, (2, p, p); empty where df_error is used.
    """

    coefficients: Floats
    variance_unit: float | None
    variance_residual: float
    n_rows: int
    n_units: int
    df_error: int
    covariance: Matrix
    covariance_adjusted: Matrix
    information_inverse: Matrix
    derivative: NDArray[np.float64]

    @property
    def intraclass_correlation(self) -> float | None:
        """Share of the variance that lies between units; None without a random intercept."""
        if self.variance_unit is None:
            return None
        return self.variance_unit / (self.variance_unit + self.variance_residual)

    def f_test(self, hypothesis: Matrix) -> FTest:
        """Test that hypothesis @ b is 0.

        Args:
            hypothesis: (q, p), of full row rank.
        """
        from scipy.stats import f as f_distribution

        q = hypothesis.shape[0]
        effect = hypothesis @ self.coefficients
        wald = float(effect @ np.linalg.solve(hypothesis @ self.covariance_adjusted @ hypothesis.T, effect)) / q
        scale, df = self._kenward_roger(hypothesis)
        return FTest(scale * wald, q, df, float(f_distribution.sf(scale * wald, q, df)))

    def t_test(self, combination: Floats) -> TTest:
        """Test that combination @ b is 0.

        Args:
            combination: (p,).
        """
        from scipy.stats import t as student

        row = np.atleast_2d(combination)
        df = self._kenward_roger(row)[1]
        estimate = float(combination @ self.coefficients)
        error = float(np.sqrt(combination @ self.covariance_adjusted @ combination))
        return TTest(estimate, error, df, estimate / error, float(2 * student.sf(abs(estimate / error), df)))

    def _kenward_roger(self, hypothesis: Matrix) -> tuple[float, float]:
        """Scale of the Wald F and its denominator df (their section 3; names as there)."""
        if self.derivative.size == 0:
            return 1.0, float(self.df_error)
        q, phi, w = hypothesis.shape[0], self.covariance, self.information_inverse
        theta = hypothesis.T @ np.linalg.solve(hypothesis @ phi @ hypothesis.T, hypothesis)
        parts = [theta @ phi @ each @ phi for each in self.derivative]
        a1 = sum(w[i, j] * np.trace(parts[i]) * np.trace(parts[j]) for i in range(2) for j in range(2))
        a2 = sum(w[i, j] * np.trace(parts[i] @ parts[j]) for i in range(2) for j in range(2))
        b = (a1 + 6 * a2) / (2 * q)
        g = ((q + 1) * a1 - (q + 4) * a2) / ((q + 2) * a2)
        below = 3 * q + 2 * (1 - g)
        c1, c2, c3 = g / below, (q - g) / below, (q + 2 - g) / below
        # V* / (2 E*^2) with E* = 1 / (1 - A2 / q), written without the quotient: 1 - A2 / q and 1 - c2 B may vanish
        # together, which happens in small balanced designs.
        e, v1, v2 = 1 - a2 / q, 1 - c2 * b, 1 - c3 * b
        ratio = 1.0 if abs(e) < 1e-10 and abs(v1) < 1e-10 else e / v1
        rho = ratio**2 * (1 + c1 * b) / (v2 * q)
        df = 4 + (q + 2) / (q * rho - 1)
        scale = 1.0 if abs(df - 2) < 1e-10 and abs(e) < 1e-10 else df * e / (df - 2)
        if not df > 0:
            raise UsageError(f"The test of {q} contrasts has {df:.3g} denominator degrees of freedom: too few units.")
        return float(scale), float(df)


def fit(y: Floats, x: Matrix, unit: NDArray[np.intp] | None) -> RandomIntercept:
    """Fit by REML; without units by ordinary least squares.

    Args:
        y: (n,).
        x: (n, p), of full column rank.
        unit: for each row the index of its unit, 0 to m - 1, or None.

    Raises:
        UsageError: x is not of full rank, no degrees of freedom are left, or nothing varies beyond x.
    """
    n, p = x.shape
    if np.linalg.matrix_rank(x) < p:
        raise UsageError("The fixed effects cannot be told apart: some are combinations of others. Leave one out.")
    if n <= p:
        raise UsageError(f"{n} rows for {p} means: nothing is left to tell the error by. Repeat the treatments.")
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    rss = float(residual @ residual)
    if rss <= 1e-20 * float(y @ y):
        raise UsageError("Nothing varies beyond the fixed effects: there is no error to test against.")
    if unit is None:
        return _least_squares(y, x)
    m = int(unit.max()) + 1
    z = np.zeros((n, m))
    z[np.arange(n), unit] = 1.0
    if m == n:
        raise UsageError("Every unit has one row: a random intercept cannot be told from the error. Leave it out.")
    rank_with_units = int(np.linalg.matrix_rank(np.hstack([x, z])))
    if rank_with_units == p:
        raise UsageError(
            "The fixed effects fix every unit: no unit is left to tell the error between units by. Have at least one "
            "cell with two units, or fewer factors."
        )
    if rank_with_units >= n:
        raise UsageError("Nothing is left to tell the error within units by. Repeat more.")
    n_of = z.sum(axis=0)
    means, mean_x = (z.T @ y) / n_of, (z.T @ x) / n_of[:, None]
    if np.allclose(means[unit], y, rtol=1e-12, atol=0) and np.array_equal(mean_x[unit], x):
        # The limit of the mixed model where nothing varies within units, such as accuracy at temperature 0.
        fitted = _least_squares(means, mean_x)
        return replace(fitted, variance_unit=fitted.variance_residual, variance_residual=0.0, n_rows=n)
    variances = _reml(y, x, z)
    return _finish(y, x, z, variances)


def _least_squares(y: Floats, x: Matrix) -> RandomIntercept:
    n, p = x.shape
    if n <= p:
        raise UsageError(f"{n} values for {p} means: nothing is left to tell the error by. Repeat the treatments.")
    coefficients = np.asarray(np.linalg.lstsq(x, y, rcond=None)[0], dtype=np.float64)
    residual = y - x @ coefficients
    variance = float(residual @ residual) / (n - p)
    covariance = _inverse(x.T @ x) * variance
    none = np.empty((0, 0))
    return RandomIntercept(coefficients, None, variance, n, n, n - p, covariance, covariance, none, np.empty((0, p, p)))


def _solver(z: Matrix, variance_unit: float, variance_residual: float) -> tuple[Floats, Floats]:
    """Rows per unit, and the weight w with V^-1 = (I - Z w Z') / variance_residual."""
    n_of = z.sum(axis=0)
    return n_of, variance_unit / (variance_residual + n_of * variance_unit)


def _reml(y: Floats, x: Matrix, z: Matrix) -> tuple[float, float]:
    """Variances between units and of the residual that maximise the restricted likelihood, the former at least 0."""
    from scipy.optimize import minimize_scalar

    n, p = x.shape
    n_of, zx, zy, xx, xy, yy = z.sum(axis=0), z.T @ x, z.T @ y, x.T @ x, x.T @ y, float(y @ y)

    def profile(ratio: float) -> tuple[float, float]:
        w = ratio / (1 + n_of * ratio)
        xvx, xvy = xx - zx.T @ (w[:, None] * zx), xy - zx.T @ (w * zy)
        residual = yy - float(zy @ (w * zy)) - float(xvy @ np.linalg.solve(xvx, xvy))
        deviance = (n - p) * np.log(residual) + np.log1p(n_of * ratio).sum() + np.linalg.slogdet(xvx)[1]
        return float(deviance), residual / (n - p)

    grid = np.linspace(-14.0, 20.0, 69)
    deviance = [profile(float(np.exp(each)))[0] for each in grid]
    best = int(np.argmin(deviance))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)]
    found = minimize_scalar(lambda each: profile(float(np.exp(each)))[0], bounds=(low, high), method="bounded")
    ratio = float(np.exp(found.x))
    if best == 0 or profile(0.0)[0] <= float(found.fun):
        return 0.0, profile(0.0)[1]
    variances = np.asarray([ratio * profile(ratio)[1], profile(ratio)[1]])
    for _ in range(8):  # Fisher scoring takes the last digits: the profile is flat to rounding near its minimum
        score, information, *_ = _score(y, x, z, variances)
        step = variances + np.linalg.solve(information, score)
        if not (step > 0).all():
            break
        variances = step
    return float(variances[0]), float(variances[1])


def _score(y: Floats, x: Matrix, z: Matrix, variances: Floats) -> tuple[Floats, Matrix, Matrix, Matrix, Matrix]:
    """Score and expected information of the two variances, and V^-1 X, V^-2 X and the coefficients' covariance."""
    n = x.shape[0]
    between, within = float(variances[0]), float(variances[1])
    n_of, w = _solver(z, between, within)

    def solve(right: Matrix) -> Matrix:
        return (right - z @ (w[:, None] * (z.T @ right))) / within

    vx = solve(x)
    vvx = solve(vx)
    phi = _inverse(x.T @ vx)
    pz = solve(z) - vx @ (phi @ (vx.T @ z))
    py = solve(y[:, None]) - vx @ (phi @ (vx.T @ y[:, None]))
    zpz, total = z.T @ pz, within + n_of * between
    trace_v1 = (n - n_of.size) / within + (1 / total).sum()
    trace_v2 = (n - n_of.size) / within**2 + (1 / total**2).sum()
    square = phi @ (vx.T @ vx)
    trace_pp = trace_v2 - 2 * np.trace(phi @ (vx.T @ vvx)) + np.trace(square @ square)
    score = 0.5 * np.asarray(
        [((z.T @ py) ** 2).sum() - np.trace(zpz), float((py**2).sum()) - (trace_v1 - np.trace(square))]
    )
    cross = (pz**2).sum()
    information = 0.5 * np.asarray([[(zpz**2).sum(), cross], [cross, trace_pp]])
    return score, information, vx, vvx, phi


def _finish(y: Floats, x: Matrix, z: Matrix, variances: tuple[float, float]) -> RandomIntercept:
    """Coefficients and the matrices that the tests need, at the given variances."""
    n, p = x.shape
    _, information, vx, vvx, phi = _score(y, x, z, np.asarray(variances))
    _, w = _solver(z, *variances)
    w_matrix = _inverse(information)
    zvx = z.T @ vx
    derivative = -np.stack([zvx.T @ zvx, vx.T @ vx])
    zvz = (np.diag(z.sum(axis=0)) - np.diag(w * z.sum(axis=0) ** 2)) / variances[1]
    cross = zvx.T @ (z.T @ vvx)
    q = [[zvx.T @ zvz @ zvx, cross], [cross.T, vx.T @ vvx]]
    middle = sum(w_matrix[i, j] * (q[i][j] - derivative[i] @ phi @ derivative[j]) for i in range(2) for j in range(2))
    adjusted = phi + 2 * phi @ middle @ phi
    return RandomIntercept(
        coefficients=phi @ (vx.T @ y),
        variance_unit=variances[0],
        variance_residual=variances[1],
        n_rows=n,
        n_units=z.shape[1],
        df_error=n - p,
        covariance=phi,
        covariance_adjusted=adjusted,
        information_inverse=w_matrix,
        derivative=derivative,
    )


def _inverse(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)
