//! Pointers from C: the only place that follows them.
//!
//! The wrappers are transparent, so they stand in signatures as the pointers they are. They cannot be made in Rust;
//! one exists only because a C caller passed it, and NVML's contract is that such a pointer is NULL or good for what the
//! signature says. NULL is refused with "invalid argument".
#![expect(unsafe_code, reason = "follows the pointers that C callers pass")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::slice;

use crate::library::{Answer, Code};

/// An `nvmlDevice_t`, `nvmlEventSet_t` or alike: a number to us.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Handle(*mut c_void);

impl Handle {
    pub(super) fn number(self) -> usize {
        self.0.addr()
    }

    /// As it stands inside of structs.
    pub(super) fn pointer<T>(self) -> *mut T {
        self.0.cast()
    }

    /// A handle to give out. It is compared and never followed.
    pub(super) fn from_number(number: usize) -> Self {
        Self(std::ptr::without_provenance_mut(number))
    }
}

/// Where a result goes, or where an argument comes from and a result goes.
#[repr(transparent)]
pub(super) struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T: Copy> Out<T> {
    pub(super) fn put(self, value: T) -> Answer {
        self.check()?;
        // SAFETY: not NULL, and the caller vouches for the rest (see the head of this file).
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    pub(super) fn get(self) -> Answer<T> {
        self.check()?;
        // SAFETY: not NULL, and the caller vouches for the rest (see the head of this file).
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// For calls that must refuse before they write anything.
    pub(super) fn check(self) -> Answer {
        if self.0.is_null() {
            Err(Code::INVALID_ARGUMENT)
        } else {
            Ok(())
        }
    }

    pub(super) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The same place as that of another type which starts alike, for a function that fills an older, shorter struct.
    pub(super) fn narrowed<U>(self) -> Out<U> {
        const { assert!(size_of::<U>() <= size_of::<T>()) };
        Out(self.0.cast())
    }
}

impl<T: Copy> Out<T> {
    /// Fills an array in the way of NVML: `count` says how much room there is and is told how much is needed or used.
    pub(super) fn fill(self, count: Out<c_uint>, items: &[T]) -> Answer {
        let answer = self.fill_room(count.get()?, items);
        count.put(c_uint::try_from(items.len()).unwrap_or(c_uint::MAX))?;
        answer
    }

    /// Fills an array with room for as many elements, all or nothing.
    pub(super) fn fill_room(self, room: c_uint, items: &[T]) -> Answer {
        let needed = c_uint::try_from(items.len()).unwrap_or(c_uint::MAX);
        if room < needed {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        if needed > 0 {
            self.check()?;
            // SAFETY: not NULL, and the caller said that there is room for as many elements.
            unsafe { self.0.copy_from_nonoverlapping(items.as_ptr(), items.len()) };
        }
        Ok(())
    }

    /// A place that a caller wrote into a struct.
    pub(super) fn from_struct(place: *mut T) -> Self {
        Self(place)
    }

    /// Goes over an array of `count` elements in place.
    pub(super) fn each(self, count: c_int, mut visit: impl FnMut(&mut T)) -> Answer {
        self.check()?;
        let count = usize::try_from(count).map_err(|_| Code::INVALID_ARGUMENT)?;
        // SAFETY: not NULL, and the caller says that it holds `count` initialised elements.
        unsafe { slice::from_raw_parts_mut(self.0, count) }
            .iter_mut()
            .for_each(&mut visit);
        Ok(())
    }
}

/// An array whose elements have a size that only the scenario knows.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct OutElements(*mut c_void);

impl OutElements {
    /// As [`Out::fill`]. With a `stride` beyond the caller's element it writes past the end of the caller's array: this
    /// is the defect of some real drivers that a scenario asks for by `process_element_bytes`.
    pub(super) fn fill<const N: usize>(
        self,
        count: Out<c_uint>,
        stride: usize,
        items: &[[u8; N]],
    ) -> Answer {
        let room = count.get()?;
        let needed = c_uint::try_from(items.len()).unwrap_or(c_uint::MAX);
        if room < needed {
            count.put(needed)?;
            return Err(Code::INSUFFICIENT_SIZE);
        }
        if needed > 0 && self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        for (position, item) in items.iter().enumerate() {
            let place = self.0.cast::<u8>().wrapping_add(position * stride);
            // SAFETY: not NULL, and `count` said that there is room for as many elements; their size is a matter of
            // the scenario (see above).
            unsafe { place.copy_from_nonoverlapping(item.as_ptr(), stride.min(N)) };
        }
        count.put(needed)
    }
}

/// A buffer for text.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct OutText(*mut c_char);

impl OutText {
    pub(super) fn put(self, length: c_uint, text: &str) -> Answer {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        let room = usize::try_from(length).unwrap_or(usize::MAX);
        if room <= text.len() {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        let place = self.0.cast::<u8>();
        // SAFETY: not NULL, and `length` said that there is room for the text and its end.
        unsafe {
            place.copy_from_nonoverlapping(text.as_ptr(), text.len());
            place.wrapping_add(text.len()).write(0);
        }
        Ok(())
    }
}

/// A text from the caller.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct InText(*const c_char);

impl InText {
    pub(super) fn get(self) -> Answer<String> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not NULL, and the caller passes a string that ends.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str()
            .map(str::to_owned)
            .map_err(|_| Code::INVALID_ARGUMENT)
    }
}

/// Text for a fixed array in a struct; cut if need be, always ended.
pub(super) fn array<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (place, byte) in array.iter_mut().take(N.saturating_sub(1)).zip(text.bytes()) {
        *place = c_char::from_ne_bytes([byte]);
    }
    array
}

/// The word a caller puts into a versioned struct: its size, and the version in the top byte.
pub(super) const fn version_word<T>(version: u32) -> u32 {
    let size = size_of::<T>();
    assert!(size < 1 << 24);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "asserted above; const fn has no try_from"
    )]
    let size = size as u32;
    size | version << 24
}
