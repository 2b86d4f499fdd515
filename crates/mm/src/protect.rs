//! Protect: changes what mappings permit.

use crate::{AddressSpace, Error, Mmu, Protection, VirtualPage, VirtualSpan, order::Token};

impl<M: Mmu> AddressSpace<M> {
    /// Sets the protection of all pages of `span`.
    ///
    /// # Errors
    /// [`Error::BadSpan`]; [`Error::NotMapped`] if there is a gap; [`Error::NoMemory`] for a mapping that
    /// is cut in two; the machine's error: nothing has changed. [`Error::Fault`]: the protection has changed,
    /// but a page that has to be in memory could not be brought in.
    pub fn protect(&self, span: VirtualSpan, protection: Protection) -> Result<(), Error> {
        self.core.check(span)?;
        {
            let mut nothing = Token::nothing_held();
            let (mut state, mut in_space) = self.core.state.write(&mut nothing);
            state.all_mapped(span)?;
            self.core.split_ends(&mut state, &mut in_space, span)?;
            self.core.manager.mmu.protect(&self.core.machine, span, protection)?;
            let mut at = span.first();
            while at < span.end() {
                let Some(mapping) = state.mappings.at_or_before_mut(at.number()) else { break };
                mapping.protection = protection;
                at = mapping.extent.at.end().max(VirtualPage::new(at.number() + 1));
            }
            state.join(&mut in_space, span);
        }
        self.core.populate(span)
    }
}
