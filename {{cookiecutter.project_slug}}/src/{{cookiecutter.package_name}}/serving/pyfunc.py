"""The registered model as MLflow loads it anywhere: raw rows in, the answers of the server out.

mlflow.pyfunc.load_model("models:/<name>@champion").predict(rows)
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.pyfunc.model import PythonModel

from ..packaging.bundle import Bundle
from ..task.features import Instance, check_instance, row_to_instance
from .predictor import load


class Model(PythonModel):
    """Holds the bundle that was logged with it."""

    def load_context(self, context: Any) -> None:
        self.champion = load(Bundle.load(Path(context.artifacts["bundle"])), "")

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Answers on raw rows [n] under the names that the server gives them; other columns than
        the features are ignored. Raises ValueError that names the row and the rule it breaks.
        """
        features, instances = self.champion.features, []
        rows = model_input.astype(object).where(model_input.notna(), None)
        for number, row in zip(rows.index, rows.to_dict("records"), strict=True):
            try:
                item = row_to_instance({str(name): row[name] for name in row}, features)
                instances.append(Instance.model_validate(item))
                check_instance(instances[-1], features)
            except KeyError as error:
                raise ValueError(f"the column {error} is missing") from None
            except ValueError as error:
                raise ValueError(f"row {number}: {error}") from None
        answers = self.champion.predict(self.champion.decode(instances)).answers
        return pd.DataFrame(self.champion.encode(answers), index=rows.index)
