//! One field of data, and structs of records.

use std::{fmt, marker::PhantomData};

/// A field of a plain struct, as [`field!`](crate::field) makes it.
pub struct Field<T, F> {
    offset: usize,
    of: PhantomData<fn(&T) -> &F>,
}

impl<T, F> Clone for Field<T, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, F> Copy for Field<T, F> {}

impl<T, F> fmt::Debug for Field<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Field").field("offset", &self.offset).finish()
    }
}

impl<T, F> Field<T, F> {
    /// For [`field!`](crate::field), which knows the offset. The function is never called: it has the
    /// compiler say what type the field has.
    #[doc(hidden)]
    #[inline]
    #[must_use]
    pub const fn new(offset: usize, _: fn(&T) -> &F) -> Self {
        Self { offset, of: PhantomData }
    }

    /// Bytes before it.
    #[inline]
    #[must_use]
    pub const fn offset(self) -> usize {
        self.offset
    }
}

/// Names a field of a plain struct, for `get_field` and `set_field` of a guard: they copy it, and leave
/// the others where they are.
///
/// # Examples
/// ```
/// use commonhold::{Access, Mutex, Space, field, zerocopy::{FromBytes, Immutable, IntoBytes}};
///
/// #[derive(FromBytes, IntoBytes, Immutable)]
/// #[repr(C)]
/// struct Account {
///     balance: i64,
///     history: [i64; 31],
/// }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-field-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// space.create("account", Mutex::<Account>::SIZE)?;
/// let mapping = space.map("account", Access::ReadWrite)?;
/// let account = mapping.open::<Mutex<Account>>(0)?;
/// let guard = account.lock().map_err(|error| error.to_string())?;
/// let balance = guard.get_field(field!(Account, balance))?;
/// guard.set_field(field!(Account, balance), &(balance + 10))?;
/// # assert_eq!(guard.get()?.balance, 10);
/// # drop(guard);
/// # drop(mapping);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! field {
    ($type:ty, $field:ident $(. $inner:ident)*) => {
        $crate::Field::<$type, _>::new(
            ::core::mem::offset_of!($type, $field $(. $inner)*),
            |value| &value.$field $(. $inner)*,
        )
    };
}

/// Makes a struct of records, one after the other: opened as a whole, each field a lock of its own.
///
/// # Examples
/// ```
/// use commonhold::{Access, Mutex, Record, RwLock, Space, records};
///
/// records! {
///     /// A row of the table.
///     struct Account<'a> {
///         balance: Mutex<'a, i64>,
///         log: RwLock<'a, [u64; 8]>,
///     }
/// }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-records-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// space.create("accounts", 100 * Account::SIZE)?;
/// let accounts = space.map("accounts", Access::ReadWrite)?;
/// let account: Account = accounts.open(42 * Account::SIZE)?;
/// account.balance.lock().map_err(|error| error.to_string())?.set(&-7)?;
/// account.log.write().map_err(|error| error.to_string())?.update(|log| log[0] += 1)?;
/// # drop(accounts);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! records {
    (
        $(#[$about:meta])*
        $visible:vis struct $name:ident<$life:lifetime> {
            $($(#[$field_about:meta])* $field_visible:vis $field:ident: $type:ty),+ $(,)?
        }
    ) => {
        $(#[$about])*
        #[derive(Debug)]
        $visible struct $name<$life> {
            $($(#[$field_about])* $field_visible $field: $type,)+
        }

        impl<$life> $crate::Record<$life> for $name<$life> {
            const SIZE: u64 = 0 $(+ <$type as $crate::Record<$life>>::SIZE)+;

            fn open(
                mapping: &$life $crate::Mapping,
                offset: u64,
            ) -> ::core::result::Result<Self, $crate::RegionError> {
                // All of it must fit before anything of it is tagged.
                mapping.check(offset, Self::SIZE)?;
                let mut end = offset;
                $(
                    let begin = end;
                    end += <$type as $crate::Record<$life>>::SIZE;
                    let $field = <$type as $crate::Record<$life>>::open(mapping, begin)?;
                )+
                debug_assert_eq!(end - offset, Self::SIZE);
                Ok(Self { $($field),+ })
            }
        }
    };
}
