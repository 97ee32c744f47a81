"""The one llama.cpp that the patches fit: the copy vendored in this source distribution of llama-cpp-python."""

VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
