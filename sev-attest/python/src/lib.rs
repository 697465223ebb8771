//! The verifier as Python calls it: `sev_attest._native.answer`, below the package in `python/`.

use pyo3::prelude::*;

/// What there is for Python to import.
#[pymodule]
mod _native {
    use super::{PyResult, Python, pyfunction};

    /// Answers a request of JSON; the shape of both is that of the page's WebAssembly.
    #[pyfunction]
    fn answer(py: Python<'_>, request: &str) -> PyResult<String> {
        Ok(py.detach(|| sev_attest_web::answer(request)))
    }
}
