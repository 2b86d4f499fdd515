//! A command for a child, as the ledger parses it.

/// Which lock of a region.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    Own,
    Mutex(u64),
    Permit,
    Once,
    Changes,
}

/// A parsed command.
pub(crate) struct Command<'a> {
    pub(crate) verb: &'a str,
    pub(crate) name: &'a str,
    pub(crate) how: &'a str,
    pub(crate) third: u64,
}

pub(crate) fn parse(text: &str) -> Command<'_> {
    let mut words = text.split_whitespace();
    let mut word = || words.next().unwrap_or("");
    let (verb, name, how) = (word(), word(), word());
    Command { verb, name, how, third: word().parse().unwrap_or(0) }
}

impl Command<'_> {
    /// The lock that it takes, if it takes one.
    pub(crate) fn takes(&self) -> Option<Which> {
        Some(match self.verb {
            "lock" | "rlock" => Which::Own,
            "mlock" => Which::Mutex(self.third),
            "permit" => Which::Permit,
            "once" => Which::Once,
            _ => return None,
        })
    }

    /// The lock that it takes and frees again, if it does so.
    pub(crate) fn uses(&self) -> Option<Which> {
        match self.verb {
            "alone" => Some(Which::Mutex(self.third)),
            "solo" => Some(Which::Own),
            "await" | "notify" | "habit" => Some(Which::Changes),
            _ => None,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.how.parse().unwrap_or(0)
    }
}
