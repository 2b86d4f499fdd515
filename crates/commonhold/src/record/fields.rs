//! Fields of data, and structs of records.

use std::{fmt, marker::PhantomData};

/// A field of a plain struct, as [`field!`](crate::field) makes it.
///
/// # Examples
/// ```
/// use commonhold::{Field, Mutex, Space, field};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-field-of-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// commonhold::plain! {
///     struct Account { balance: i64, history: [i64; 31] }
/// }
/// const BALANCE: Field<Account, i64> = field!(Account, balance);
///
/// let account = space.record::<Mutex<Account>>("account")?;
/// let guard = account.lock_repairing(|_| Ok(()))?; // a balance is written in one piece, so never half changed
/// guard.field(BALANCE).with_mut(|balance| *balance += 10);
/// guard.unlock()?;
/// # drop(account);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
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
    /// For [`field!`](crate::field), which knows the offset. The function is never called: it lets the compiler
    /// infer the type of the field.
    #[doc(hidden)]
    #[inline]
    #[must_use]
    pub const fn new(offset: usize, _: fn(&T) -> &F) -> Self {
        Self { offset, of: PhantomData }
    }

    /// Its offset in the struct, in bytes.
    #[inline]
    #[must_use]
    pub const fn offset(self) -> usize {
        self.offset
    }
}

/// Names a field of a plain struct, for the method `field` of a guard or a [`Part`](crate::Part), which reads and
/// writes only that field.
///
/// # Examples
/// ```
/// use commonhold::{Mutex, Space, field};
///
/// commonhold::plain! {
///     /// A row.
///     struct Account { balance: i64, history: [i64; 31] }
/// }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-field-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let account = space.record::<Mutex<Account>>("account")?;
/// let guard = account.lock()?;
/// guard.field(field!(Account, balance)).with_mut(|balance| *balance += 10);
/// # drop(guard);
/// # drop(account);
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

/// Makes a struct that may lie in shared bytes: `repr(C)`, with the traits of [`Plain`](crate::Plain) derived, and
/// [`Clone`], [`Copy`] and [`Debug`]. It does not compile if the struct has padding, or a field that not every bit
/// pattern may inhabit.
///
/// # Examples
/// ```
/// commonhold::plain! {
///     /// A point in the plane.
///     #[derive(PartialEq)]
///     pub struct Point { pub x: f64, pub y: f64 }
/// }
/// let point = Point { x: 1.0, y: 2.0 };
/// assert_eq!(point, point.clone());
/// ```
/// Between these two fields there would be three bytes of padding:
/// ```compile_fail,E0277
/// commonhold::plain! {
///     struct Padded { tag: u8, value: u32 }
/// }
/// ```
#[macro_export]
macro_rules! plain {
    ($(#[$about:meta])* $visible:vis struct $($rest:tt)*) => {
        $(#[$about])*
        #[derive(
            Debug, Clone, Copy,
            $crate::zerocopy::FromBytes,
            $crate::zerocopy::IntoBytes,
            $crate::zerocopy::Immutable,
        )]
        #[zerocopy(crate = "commonhold::zerocopy")]
        #[repr(C)]
        $visible struct $($rest)*
    };
}

/// Makes a struct of records, which lie one after the other. It is opened as a whole, and each field is a lock of
/// its own.
///
/// # Examples
/// ```
/// use commonhold::{Mutex, RwLock, Space, records};
///
/// records! {
///     /// A row of the table.
///     struct Account {
///         balance: Mutex<i64>,
///         log: RwLock<[u64; 8]>,
///     }
/// }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-records-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let mapping = space.map_or_create("accounts", 100 * Account::SIZE)?;
/// let accounts = mapping.open_array::<Account>(0, 100)?;
/// let account = accounts.get(42)?;
/// account.balance.lock()?.set(-7);
/// account.log.write()?.at(0)?.with_mut(|entry| *entry += 1);
/// # drop((account, accounts, mapping));
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// # use commonhold::Record as _;
/// ```
#[macro_export]
macro_rules! records {
    (
        $(#[$about:meta])*
        $visible:vis struct $name:ident {
            $($(#[$field_about:meta])* $field_visible:vis $field:ident: $type:ty),+ $(,)?
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone)]
        $visible struct $name {
            $($(#[$field_about])* $field_visible $field: $type,)+
        }

        impl $crate::Record for $name {
            const SIZE: u64 = 0 $(+ <$type as $crate::Record>::SIZE)+;

            fn open(
                mapping: &$crate::Mapping,
                offset: u64,
            ) -> ::core::result::Result<Self, $crate::RegionError> {
                // Check that all of it fits before tagging any part.
                mapping.check(offset, Self::SIZE)?;
                let mut end = offset;
                $(
                    let begin = end;
                    end += <$type as $crate::Record>::SIZE;
                    let $field = <$type as $crate::Record>::open(mapping, begin)?;
                )+
                debug_assert_eq!(end - offset, Self::SIZE);
                Ok(Self { $($field),+ })
            }
        }
    };
}
