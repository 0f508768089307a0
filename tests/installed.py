"""What is installed."""

import transformers

HAS_TRANSFORMERS_5 = int(transformers.__version__.partition(".")[0]) >= 5
