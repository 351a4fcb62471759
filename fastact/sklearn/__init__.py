"""scikit-learn estimators: networks of fused maxout layers, trained by `fastact.nn`.

    model = make_pipeline(StandardScaler(), fastact.sklearn.MaxoutClassifier(random_state=0)).fit(X, y)

Parameters, attributes and methods are named as in scikit-learn's MLPClassifier and MLPRegressor.  Networks
compute in float32.  README.md, in this folder, says what differs.
"""

try:
    from .estimators import MaxoutClassifier, MaxoutRegressor
except ImportError as error:
    raise ImportError(
        f"fastact.sklearn needs scikit-learn 1.6 or newer ({error}): pip install 'fastact[sklearn]'"
    ) from error

__all__ = ["MaxoutClassifier", "MaxoutRegressor"]
