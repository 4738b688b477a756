//! Who may import whom: the floors, and the shim in front of atomics and threads.

use crate::source::{Source, mentions};

/// The tables that [`floors`] judges by; `tables.rs` says what each means.
pub struct Floors<'a> {
    pub floors: &'a [(&'a str, u8)],
    pub same_floor: &'a [(&'a str, &'a str)],
    pub never: &'a [(&'a str, &'a str)],
}

impl Floors<'_> {
    fn row(&self, module: &str) -> Option<usize> {
        self.floors.iter().position(|(name, _)| *name == module)
    }

    fn floor(&self, module: &str) -> Option<u8> {
        self.row(module).map(|row| self.floors[row].1)
    }

    /// Why `from` may not import `to`, if it may not.
    fn objection(&self, from: &str, to: &str) -> Option<String> {
        let (Some(below), Some(here)) = (self.floor(to), self.floor(from)) else {
            return Some(format!("`{to}` has no floor: import from the module that defines it"));
        };
        let excepted = self.same_floor.contains(&(from, to));
        let allowed = below < here || (below == here && excepted);
        if from == to || (allowed && !self.never.contains(&(from, to))) {
            return None;
        }
        Some(format!("`{from}` (floor {here}) must not import `{to}` (floor {below})"))
    }

    /// What is wrong with the tables themselves, given the modules that exist.
    pub fn faults(&self, modules: &[&str]) -> Vec<String> {
        let stale = self.floors.iter().filter(|(name, _)| !modules.contains(name));
        let mut faults: Vec<String> =
            stale.map(|(name, _)| format!("the row of `{name}` names no module")).collect();
        for (from, to) in self.same_floor {
            let downward = self.row(to).zip(self.row(from)).is_some_and(|(to, from)| to < from);
            if !downward || self.floor(from) != self.floor(to) {
                faults.push(format!("`{to}` must stand above `{from}`, on the same floor"));
            }
        }
        faults
    }
}

/// The path of a library file below the crate root: `src/ring/mod.rs` is `["ring"]`.
pub fn module_path(path: &str) -> Vec<&str> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    inside.split('/').filter(|name| !matches!(*name, "mod" | "lib")).collect()
}

/// A library file imports only from lower floors and from its own folder.
pub fn floors(source: &Source, floors: &Floors) -> Vec<String> {
    let module = module_path(&source.path);
    let Some(from) = module.first() else {
        return Vec::new();
    };
    if *from == "tests" {
        // Tests of the whole look at every floor.
        return Vec::new();
    }
    if floors.row(from).is_none() {
        return vec![source.at(1, &format!("`{from}` has no row in FLOORS"))];
    }
    let mut violations = Vec::new();
    for mention in mentions(&source.shipped(), &["crate", "super"]) {
        let names: Vec<&str> = mention.path.iter().map(String::as_str).collect();
        let supers = names.iter().take_while(|name| **name == "super").count();
        let Some(to) = names.get(supers.max(1)) else {
            continue;
        }; // a visibility
        let levels_up = supers.saturating_sub(mention.inline_mods);
        if names[0] == "super" && levels_up < module.len() {
            continue; // inside its own folder
        }
        let objection = floors.objection(from, to);
        violations.extend(objection.map(|why| source.at(mention.line, &why)));
    }
    violations
}

/// Only the shim names atomics, locks, threads and their loom doubles.
pub fn shim(source: &Source, shim: &str, shimmed: &[&str]) -> Vec<String> {
    if source.path.starts_with(shim) || !source.is_library() {
        return Vec::new();
    }
    let heads: Vec<&str> = shimmed.iter().filter_map(|path| path.split("::").next()).collect();
    let mut violations = Vec::new();
    for mention in mentions(&source.shipped(), &heads) {
        let path = mention.path.join("::");
        let is_inside = |root: &&&str| format!("{path}::").starts_with(&format!("{root}::"));
        if let Some(root) = shimmed.iter().find(is_inside) {
            let what = format!("`{root}` is named only in {shim}: import from there");
            violations.push(source.at(mention.line, &what));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOORS: Floors = Floors {
        floors: &[("low", 0), ("side", 0), ("mid", 1), ("top", 2)],
        same_floor: &[("side", "low")],
        never: &[("top", "side")],
    };

    fn judge(path: &str, text: &str) -> usize {
        floors(&Source::new(path, text), &FLOORS).len()
    }

    #[test]
    fn floors_can_fail() {
        assert_eq!(judge("src/low.rs", "use crate::mid::A;"), 1, "upwards");
        assert_eq!(judge("src/low.rs", "use crate::side::A;"), 1, "sideways, not excepted");
        assert_eq!(judge("src/low.rs", "use super::{mid::A, top};"), 2, "by super, in a tree");
        assert_eq!(
            judge("src/mid/a.rs", "fn f() { super::super::top::g() }"),
            1,
            "by nested super"
        );
        assert_eq!(judge("src/low.rs", "mod a { use super::super::mid::A; }"), 1, "inline module");
        assert_eq!(judge("src/top.rs", "use crate::side::A;"), 1, "never, though downwards");
        assert_eq!(judge("src/mid.rs", "use crate::Wal;"), 1, "through the crate root");
        assert_eq!(judge("src/mid.rs", "use crate::*;"), 1, "all of the crate root");
        assert_eq!(judge("src/new.rs", ""), 1, "a file without a floor");
    }

    #[test]
    fn floors_let_pass() {
        assert_eq!(judge("src/side.rs", "use crate::low::A;"), 0, "excepted");
        assert_eq!(judge("src/mid/a.rs", "use super::b::{C, D}; use crate::mid::e::F;"), 0, "own");
        assert_eq!(judge("src/top.rs", "mod a { use super::B; } use crate::{low::*, mid};"), 0);
        assert_eq!(judge("src/low.rs", "#[cfg(test)]\nmod tests { use crate::top::A; }"), 0);
        assert_eq!(
            judge("src/low.rs", "// crate::top\npub(crate) fn f() { g(\"crate::top\") }"),
            0
        );
        assert_eq!(judge("src/lib.rs", "pub use crate::top::A;"), 0);
    }

    #[test]
    fn tables_can_be_at_fault() {
        assert_eq!(FLOORS.faults(&["low", "side", "mid", "top"]), [""; 0]);
        assert_eq!(FLOORS.faults(&["low", "side", "mid"]).len(), 1);
        let upward = Floors { same_floor: &[("low", "side"), ("mid", "low")], ..FLOORS };
        assert_eq!(upward.faults(&["low", "side", "mid", "top"]).len(), 2);
    }

    #[test]
    fn shim_can_fail() {
        let judge = |path: &str, text: &str| {
            shim(&Source::new(path, text), "src/sync/", &["std::sync", "std::thread", "loom"]).len()
        };
        assert_eq!(judge("src/a.rs", "use std::{fmt, sync::Arc, thread};"), 2);
        assert_eq!(judge("src/a.rs", "fn f() { ::std::thread::yield_now(); loom::model(g) }"), 2);
        assert_eq!(judge("src/a.rs", "#[cfg(test)]\nmod tests { use std::thread; }"), 0);
        assert_eq!(judge("src/a.rs", "use crate::sync::Arc; #[cfg(wal_loom)] fn f() {}"), 0);
        assert_eq!(judge("src/sync/native.rs", "pub use std::sync::Arc;"), 0);
    }
}
