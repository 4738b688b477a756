//! Cache lines: writing them back to memory, and knowing that they are there.
//!
//! 1. The instruction is the best that the processor has, detected once: `clwb`, which keeps the
//!    line in the cache, else `clflushopt`, else `clflush`; on aarch64 `dc cvap`, else `dc cvac`.
//!    Where there is none that a user's program may use, there is no persistent-memory mode.
//! 2. A write-back takes the line as it is in whichever cache holds it, whoever stored to it last.
//! 3. A write-back comes after the *loads* that said what to write back: no processor orders the
//!    two by itself, so a full barrier stands in front. Without it, a line could be taken before
//!    the commit word was seen that makes it worth taking.
//! 4. Nothing is in memory before the fence behind the write-backs has passed, in the same thread.

use std::ptr::NonNull;

/// Bytes of a cache line; where lines are shorter, each of them is written back.
pub(super) const LINE: u64 = 64;

/// The instruction that writes a line back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WriteBack(arch::Instruction);

impl WriteBack {
    /// The best that this processor has; `None` if it has none.
    pub(super) fn detect() -> Option<WriteBack> {
        arch::detect().map(WriteBack)
    }

    /// Starts to write back the lines of `[start, start + len)`.
    ///
    /// # Safety
    ///
    /// The range, rounded to whole lines, is mapped.
    pub(super) unsafe fn start(self, start: NonNull<u8>, len: usize) {
        let misaligned = start.as_ptr() as usize % LINE as usize;
        arch::barrier();
        for at in (0..misaligned + len).step_by(self.0.step()) {
            // In whole lines: the addresses stay in those that the range touches.
            let address = start.as_ptr().wrapping_sub(misaligned).wrapping_add(at);
            // SAFETY: in the mapped lines, by this function's contract.
            unsafe { self.0.write_back(address) };
        }
    }

    /// Returns once all that this thread has started to write back is in memory.
    pub(super) fn fence(self) {
        arch::fence();
    }
}

/// Copies `bytes` to `target`, past the caches where that is faster: the lines need not be fetched
/// to be overwritten. When it returns, the bytes are ordered as those of any other copy.
///
/// # Safety
///
/// `target` is valid for as many bytes, and nobody else touches them meanwhile.
pub(super) unsafe fn stream(target: NonNull<u8>, bytes: &[u8]) {
    // SAFETY: this function's contract.
    unsafe { arch::stream(target.as_ptr(), bytes) };
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use std::arch::asm;
    use std::arch::x86_64::{
        __cpuid, __cpuid_count, _mm_loadu_si128, _mm_sfence, _mm_stream_si128,
    };

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Instruction {
        Clwb,
        ClflushOpt,
        Clflush,
    }

    /// The leaf of `cpuid` that tells of the newer instructions, and their bits in `ebx`.
    const FEATURES: u32 = 7;
    const CLFLUSHOPT: u32 = 1 << 23;
    const CLWB: u32 = 1 << 24;

    pub(super) fn detect() -> Option<Instruction> {
        // SAFETY: every processor of this architecture has the instruction.
        #[allow(unused_unsafe, reason = "newer standard libraries call it safe")]
        let leaves = unsafe { __cpuid(0) }.eax;
        if leaves < FEATURES {
            return Some(choose(0));
        }
        // SAFETY: as above.
        #[allow(unused_unsafe, reason = "as above")]
        let features = unsafe { __cpuid_count(FEATURES, 0) }.ebx;
        Some(choose(features))
    }

    /// `clflush` is part of the architecture.
    pub(super) fn choose(features: u32) -> Instruction {
        if features & CLWB != 0 {
            Instruction::Clwb
        } else if features & CLFLUSHOPT != 0 {
            Instruction::ClflushOpt
        } else {
            Instruction::Clflush
        }
    }

    impl Instruction {
        pub(super) fn step(self) -> usize {
            super::LINE as usize
        }

        /// # Safety
        ///
        /// The line of `address` is mapped, and the processor has the instruction.
        #[inline]
        pub(super) unsafe fn write_back(self, address: *const u8) {
            match self {
                // SAFETY: mapped, by this function's contract; no register, no memory is changed.
                Instruction::Clwb => unsafe {
                    asm!("clwb [{}]", in(reg) address, options(nostack, preserves_flags));
                },
                // SAFETY: as above.
                Instruction::ClflushOpt => unsafe {
                    asm!("clflushopt [{}]", in(reg) address, options(nostack, preserves_flags));
                },
                // SAFETY: as above.
                Instruction::Clflush => unsafe {
                    asm!("clflush [{}]", in(reg) address, options(nostack, preserves_flags));
                },
            }
        }
    }

    #[inline]
    pub(super) fn barrier() {
        // A locked instruction orders write-backs behind loads, as `mfence` does, and does not
        // stop the processor from going on with what comes later.
        // SAFETY: or-ing 0 to what the stack pointer points at changes nothing but flags.
        unsafe { asm!("lock or dword ptr [rsp], 0") };
    }

    #[inline]
    pub(super) fn fence() {
        // SAFETY: SSE is part of the architecture.
        unsafe { _mm_sfence() };
    }

    /// # Safety
    ///
    /// As of `super::stream`.
    pub(super) unsafe fn stream(target: *mut u8, bytes: &[u8]) {
        let head = target.align_offset(super::LINE as usize).min(bytes.len());
        let (head, rest) = bytes.split_at(head);
        let (lines, tail) = rest.split_at(rest.len() / 16 * 16);
        // SAFETY: `target` is valid for all of `bytes`, by this function's contract.
        unsafe { std::ptr::copy_nonoverlapping(head.as_ptr(), target, head.len()) };
        let mut at = target.wrapping_add(head.len());
        for unit in lines.chunks_exact(16) {
            // SAFETY: the unit has 16 bytes.
            let value = unsafe { _mm_loadu_si128(unit.as_ptr().cast()) };
            // SAFETY: in `target`'s bytes, and aligned: `head` ends at a line's end.
            unsafe { _mm_stream_si128(at.cast(), value) };
            at = at.wrapping_add(16);
        }
        // SAFETY: in `target`'s bytes.
        unsafe { std::ptr::copy_nonoverlapping(tail.as_ptr(), at, tail.len()) };
        // Such stores are ordered by nothing else, not even by a release store that follows.
        fence();
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use std::arch::{asm, is_aarch64_feature_detected};

    /// The step is the processor's own line, if that is shorter than [`LINE`](super::LINE).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Instruction {
        /// To the point of persistence.
        Cvap { step: usize },
        /// To the point of coherency: what there is where nothing lies beyond that point.
        Cvac { step: usize },
    }

    pub(super) fn detect() -> Option<Instruction> {
        let cache_type: u64;
        // SAFETY: programs may read the register, and reading it changes nothing.
        unsafe {
            asm!("mrs {}, ctr_el0", out(reg) cache_type, options(nomem, nostack, preserves_flags));
        }
        // `DminLine`: the shortest line of all data caches, in words of 4 bytes, as a logarithm.
        let step = (4 << (cache_type >> 16 & 0xF)).min(super::LINE as usize);
        let has_cvap = is_aarch64_feature_detected!("dpb");
        Some(if has_cvap { Instruction::Cvap { step } } else { Instruction::Cvac { step } })
    }

    impl Instruction {
        pub(super) fn step(self) -> usize {
            let (Instruction::Cvap { step } | Instruction::Cvac { step }) = self;
            step
        }

        /// # Safety
        ///
        /// The line of `address` is mapped, and the processor has the instruction.
        #[inline]
        pub(super) unsafe fn write_back(self, address: *const u8) {
            match self {
                // By its number (`dc cvap`): an assembler knows the name only for the newer ones.
                // SAFETY: mapped, by this function's contract; no register, no memory is changed.
                Instruction::Cvap { .. } => unsafe {
                    asm!("sys #3, c7, c12, #1, {}", in(reg) address,
                         options(nostack, preserves_flags));
                },
                // SAFETY: as above.
                Instruction::Cvac { .. } => unsafe {
                    asm!("dc cvac, {}", in(reg) address, options(nostack, preserves_flags));
                },
            }
        }
    }

    #[inline]
    pub(super) fn barrier() {
        // SAFETY: a barrier changes nothing.
        unsafe { asm!("dmb ish", options(nostack, preserves_flags)) };
    }

    #[inline]
    pub(super) fn fence() {
        // SAFETY: a barrier changes nothing.
        unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
    }

    /// # Safety
    ///
    /// As of `super::stream`.
    pub(super) unsafe fn stream(target: *mut u8, bytes: &[u8]) {
        // SAFETY: this function's contract.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch {
    /// There is none.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Instruction {}

    pub(super) fn detect() -> Option<Instruction> {
        None
    }

    impl Instruction {
        pub(super) fn step(self) -> usize {
            match self {}
        }

        /// # Safety
        ///
        /// None: nobody has one.
        pub(super) unsafe fn write_back(self, _address: *const u8) {
            match self {}
        }
    }

    pub(super) fn barrier() {}

    pub(super) fn fence() {}

    /// # Safety
    ///
    /// As of `super::stream`.
    pub(super) unsafe fn stream(target: *mut u8, bytes: &[u8]) {
        // SAFETY: this function's contract.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::arch::{Instruction, choose};
    use super::*;

    #[test]
    fn the_best_instruction_is_chosen() {
        assert_eq!(choose(1 << 24 | 1 << 23), Instruction::Clwb);
        assert_eq!(choose(1 << 24), Instruction::Clwb);
        assert_eq!(choose(1 << 23), Instruction::ClflushOpt);
        assert_eq!(choose(!(3 << 23)), Instruction::Clflush);
    }

    /// Whatever range: it faults on nothing and leaves every byte as it was.
    #[test]
    fn a_write_back_changes_nothing() {
        let best = WriteBack::detect().expect("this architecture has one");
        let bytes: Vec<u8> = (0..=255).collect();
        for line in [best, WriteBack(Instruction::Clflush)] {
            for (start, len) in [(0, 0), (0, 1), (63, 1), (63, 2), (1, 255), (64, 128)] {
                let start = NonNull::from(&bytes[start]);
                // SAFETY: the range lies in the allocation; its lines are mapped, as pages are.
                unsafe { line.start(start, len) };
                line.fence();
            }
        }
        assert!(bytes.iter().enumerate().all(|(index, byte)| index == usize::from(*byte)));
    }
}
