//! Query parameters, decoded once. A single-valued parameter that is given twice is refused (dialects D0.9).

use super::json::invalid;
use super::status::Problem;

/// The parameters of one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes the part behind `?`.
    #[must_use]
    pub(super) fn parse(text: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(text.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// The names of all parameters.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The value of a parameter that may stand once.
    ///
    /// # Errors
    /// When it stands twice or is no UTF-8.
    pub(super) fn single(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(key, _)| key == name);
        let first = values.next().map(|(_, value)| value.as_str());
        if values.next().is_some() {
            return Err(invalid(name, "is given more than once"));
        }
        // The decoder puts this character for bytes that are no UTF-8; several names would become one.
        if first.is_some_and(|value| value.contains(char::REPLACEMENT_CHARACTER)) {
            return Err(invalid(name, "is not valid percent-encoded UTF-8"));
        }
        Ok(first)
    }

    /// A switch: absent is false.
    ///
    /// # Errors
    /// When it is neither `true` nor `false`.
    pub(super) fn switch(&self, name: &str) -> Result<bool, Problem> {
        match self.single(name)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(invalid(name, "must be true or false")),
        }
    }
}
