//! The layout of the workspace: no import cycle between the files of a crate, and no file above 400 lines
//! outside its tests. The length of functions is checked by clippy (`too_many_lines`).
//!
//! A file imports another when it names an item of it, in any form of path: `crate::`, `super::`, a `use` tree, a child
//! module, or a name that another file re-exports. Tests do not count: they import the code under test.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    str::FromStr as _,
};

use proc_macro2::{TokenStream, TokenTree};
use test_support::workspace::{self, rust_files, source_folders};

/// The most lines that a file may have, comments included, tests not.
const MAX_LINES: usize = 400;

/// A path of a module or of an item within a crate: the segments after `crate`.
type ModulePath = Vec<String>;

/// The root of the workspace: `ATOLL_LAYOUT_ROOT`, or the one that this test was built in.
fn root() -> PathBuf {
    std::env::var_os("ATOLL_LAYOUT_ROOT").map_or_else(workspace::root, PathBuf::from)
}

/// The code of a file without its modules of tests. A module in the file itself is its last item.
fn without_tests(source: &str) -> String {
    const ATTRIBUTE: &str = "\n#[cfg(test)]\n";
    let (mut code, mut rest) = (String::new(), source);
    while let Some((before, item)) = rest.split_once(ATTRIBUTE) {
        code += before;
        let (line, after) = item.split_once('\n').unwrap_or((item, ""));
        let is_module = line.starts_with("mod ") || line.starts_with("pub(") && line.contains(" mod ");
        if is_module && !line.ends_with(';') {
            return code;
        }
        // Any other item may be used by tests only, and counts.
        rest = if is_module { after } else { item };
        code.push('\n');
    }
    code + rest
}

/// Whether a file consists of the unit tests of another.
fn is_test_file(file: &Path) -> bool {
    file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests")
}

/// One file of a crate: its names, as far as the check needs them.
struct Module {
    file: PathBuf,
    /// Modules that it declares.
    children: BTreeSet<String>,
    /// Names that it imports, and their paths. A path that begins with another crate is left out.
    imports: BTreeMap<String, ModulePath>,
    /// Paths of `use *`.
    globs: Vec<ModulePath>,
    /// All paths within the crate that it names.
    paths: Vec<ModulePath>,
}

/// The files that each file imports, by the paths of their modules.
type Imports<'a> = BTreeMap<&'a ModulePath, BTreeSet<&'a ModulePath>>;

/// The modules of one crate, by path.
struct Crate(BTreeMap<ModulePath, Module>);

impl Crate {
    fn read(source_folder: &Path) -> Self {
        let files = rust_files(source_folder).into_iter();
        let modules = files.filter(|file| !is_test_file(file)).map(|file| {
            let path = module_path(file.strip_prefix(source_folder).unwrap());
            let module = Module::read(file, &path);
            (path, module)
        });
        Self(modules.collect())
    }

    /// The modules that `path` names: the one that defines the item, found through re-exports, and with a module as the
    /// item that module.
    fn resolve(&self, path: &[String], depth: usize) -> Option<&ModulePath> {
        let split = (0..=path.len()).rev().find(|&length| self.0.contains_key(&path[..length]))?;
        let (module_path, module) = self.0.get_key_value(&path[..split])?;
        let Some(item) = path.get(split) else { return Some(module_path) };
        if depth == 0 {
            return Some(module_path);
        }
        if let Some(target) = module.imports.get(item) {
            let target: ModulePath = target.iter().chain(&path[split + 1..]).cloned().collect();
            return self.resolve(&target, depth - 1);
        }
        Some(module_path)
    }

    /// The files that each file imports.
    fn imports(&self) -> Imports<'_> {
        const MAX_REEXPORTS: usize = 8;
        let resolve = |own: &ModulePath, path: &ModulePath| {
            self.resolve(path, MAX_REEXPORTS).filter(|target| *target != own)
        };
        self.0
            .iter()
            .map(|(own, module)| {
                let paths = module.paths.iter().chain(module.imports.values()).chain(&module.globs);
                (own, paths.filter_map(|path| resolve(own, path)).collect())
            })
            .collect()
    }
}

/// The path of the module in a file, relative to the source folder.
fn module_path(file: &Path) -> ModulePath {
    let mut path: ModulePath = file.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let stem = path.pop().unwrap().trim_end_matches(".rs").to_owned();
    if !["lib", "main", "mod"].contains(&&*stem) {
        path.push(stem);
    }
    path
}

impl Module {
    fn read(file: PathBuf, path: &ModulePath) -> Self {
        let source = fs::read_to_string(&file).unwrap();
        let tokens = TokenStream::from_str(&without_tests(&source))
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut module = Self {
            file,
            children: BTreeSet::new(),
            imports: BTreeMap::new(),
            globs: Vec::new(),
            paths: Vec::new(),
        };
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for pair in tokens.windows(3) {
            if let [TokenTree::Ident(keyword), TokenTree::Ident(name), TokenTree::Punct(end)] = pair
                && keyword == "mod"
                && end.as_char() == ';'
            {
                module.children.insert(name.to_string());
            }
        }
        module.read_tokens(&tokens, path);
        module
    }

    /// Reads the paths and `use` trees among the tokens.
    fn read_tokens(&mut self, tokens: &[TokenTree], own: &ModulePath) {
        let mut index = 0;
        while let Some(token) = tokens.get(index) {
            match token {
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    self.read_tokens(&inner, own);
                    index += 1;
                }
                // `pub(in path)` imports nothing.
                TokenTree::Ident(keyword) if keyword == "pub" => {
                    let is_restricted = matches!(tokens.get(index + 1), Some(TokenTree::Group(_)));
                    index += if is_restricted { 2 } else { 1 };
                }
                TokenTree::Ident(keyword) if keyword == "use" => {
                    let end = tokens[index..].iter().position(|token| is_punct(token, ';'));
                    let end = end.map_or(tokens.len(), |offset| index + offset);
                    self.read_use_tree(&tokens[index + 1..end], &[], own);
                    index = end + 1;
                }
                TokenTree::Ident(_) => {
                    let (segments, next) = read_path(tokens, index);
                    if segments.len() > 1
                        && let Some(path) = self.absolute(&segments, own)
                    {
                        self.paths.push(path);
                    }
                    index = next;
                }
                _ => index += 1,
            }
        }
    }

    /// Reads a `use` tree: a path that ends in a name, in `name as alias`, in `*`, or in braces with more trees.
    fn read_use_tree(&mut self, tokens: &[TokenTree], prefix: &[String], own: &ModulePath) {
        for tree in tokens.split(|token| is_punct(token, ',')).filter(|tree| !tree.is_empty()) {
            let (segments, next) = read_path(tree, 0);
            let mut path: Vec<String> = prefix.iter().cloned().chain(segments).collect();
            match tree.get(next) {
                Some(TokenTree::Group(group)) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    self.read_use_tree(&inner, &path, own);
                    continue;
                }
                Some(token) if is_punct(token, '*') => self.globs.extend(self.absolute(&path, own)),
                alias => {
                    let alias = alias.and(tree.get(next + 1)).map(ToString::to_string);
                    if path.last().is_some_and(|last| last == "self") {
                        path.pop();
                    }
                    let Some(name) = alias.or_else(|| path.last().cloned()) else { continue };
                    if let Some(path) = self.absolute(&path, own) {
                        self.imports.insert(name, path);
                    }
                }
            }
        }
    }

    /// The path from the root of the crate; `None` if it leads out of the crate or begins with a local name.
    fn absolute(&self, segments: &[String], own: &ModulePath) -> Option<ModulePath> {
        let (first, rest) = segments.split_first()?;
        let (mut base, mut rest) = match first.as_str() {
            "crate" => (Vec::new(), rest),
            "self" => (own.clone(), rest),
            "super" => (own.clone(), segments),
            child if self.children.contains(child) => (own.clone(), segments),
            _ => return None,
        };
        while let Some((_, after)) = rest.split_first().filter(|(segment, _)| *segment == "super") {
            base.pop();
            rest = after;
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }
}

fn is_punct(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

/// The identifiers of `a::b::c` from `index` on, and the index after them; after a trailing `::`, which precedes braces
/// or a star, that of the token after it.
fn read_path(tokens: &[TokenTree], mut index: usize) -> (Vec<String>, usize) {
    let mut segments = Vec::new();
    while let Some(TokenTree::Ident(segment)) = tokens.get(index) {
        segments.push(segment.to_string());
        index += 1;
        let is_separated =
            tokens.get(index..index + 2).is_some_and(|pair| pair.iter().all(|token| is_punct(token, ':')));
        if !is_separated {
            break;
        }
        index += 2;
    }
    (segments, index)
}

/// The files that a file imports, directly or through others.
fn reachable<'a>(imports: &Imports<'a>, from: &'a ModulePath) -> BTreeSet<&'a ModulePath> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(next) = open.pop() {
        open.extend(imports[next].iter().copied().filter(|target| found.insert(*target)));
    }
    found
}

/// The groups of files that import each other in a loop: the strongly connected components of the imports.
fn cycles<'a>(imports: &Imports<'a>) -> Vec<BTreeSet<ModulePath>> {
    let reached: Imports<'a> = imports.keys().map(|module| (*module, reachable(imports, module))).collect();
    let mut cycles: Vec<BTreeSet<ModulePath>> = Vec::new();
    for (module, targets) in &reached {
        if !targets.contains(module) || cycles.iter().any(|cycle| cycle.contains(*module)) {
            continue;
        }
        let members = targets.iter().filter(|target| reached[*target].contains(module));
        cycles.push(members.map(|member| (*member).clone()).collect());
    }
    cycles
}

#[test]
fn files_of_a_crate_form_no_import_cycle() {
    let root = root();
    let (mut report, mut count) = (String::new(), 0);
    for folder in source_folders(&root) {
        let krate = Crate::read(&folder);
        let imports = krate.imports();
        for cycle in cycles(&imports) {
            count += 1;
            writeln!(report, "a cycle of {} files:", cycle.len()).unwrap();
            for module in &cycle {
                let name =
                    |path: &ModulePath| krate.0[path].file.strip_prefix(&root).unwrap().display().to_string();
                let targets = imports[module].iter().filter(|target| cycle.contains(**target));
                let targets: Vec<String> = targets.map(|target| name(target)).collect();
                writeln!(report, "  {} imports {}", name(module), targets.join(", ")).unwrap();
            }
        }
    }
    assert!(count == 0, "{count} import cycles\n{report}");
}

#[test]
fn files_have_at_most_400_lines_of_code() {
    let root = root();
    let mut files = Vec::new();
    for folder in source_folders(&root) {
        files.extend(rust_files(&folder));
        for beside in ["benches", "tests"] {
            files.extend(rust_files(&folder.with_file_name(beside)));
        }
    }
    for folder in ["tests", "examples"] {
        files.extend(rust_files(&root.join(folder)));
    }
    let code = files.iter().filter(|file| !file.ends_with("tests.rs"));
    let sizes = code.map(|file| (without_tests(&fs::read_to_string(file).unwrap()).lines().count(), file));
    let mut long: Vec<(usize, String)> = sizes
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, file)| (lines, file.strip_prefix(&root).unwrap().display().to_string()))
        .collect();
    long.sort_by(|left, right| right.cmp(left));
    let report: String = long.iter().map(|(lines, file)| format!("  {lines} {file}\n")).collect();
    assert!(long.is_empty(), "{} files above {MAX_LINES} lines of code\n{report}", long.len());
}
