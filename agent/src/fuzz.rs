//! How long parsers are fed with what anybody could write: some hundred cases in each run, and 50,000 with `GPUQUOTA_SLOW=1`.

use proptest::test_runner::Config;

pub(crate) fn config() -> Config {
    let long = std::env::var_os("GPUQUOTA_SLOW").is_some_and(|value| value == "1");
    Config::with_cases(if long { 50_000 } else { 256 })
}
