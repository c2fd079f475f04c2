//! What stands in for a driver and for a compiler.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{make_executable, run, write};

/// Stands in for nvcc and leaves out kernels, see the file.
const SLIM_NVCC: &str = include_str!("../../templates/cuda/slim-nvcc.sh");

/// The names that follow `fn ` in a Rust source.
fn functions_in(source: &str) -> BTreeSet<&str> {
    let name =
        |rest: &'_ str| rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    source.split("fn ").skip(1).map(|rest| &rest[..name(rest)]).filter(|name| !name.is_empty()).collect()
}

/// A `libcuda.so` whose functions, all that cudarc calls, return 100: no device.
pub(super) fn write_driver_stub(dir: &Path, bindings: &Path) -> Result<()> {
    let source = std::fs::read_to_string(bindings)
        .with_context(|| format!("can't read cudarc's bindings, {}", bindings.display()))?;
    let is_driver_function = |name: &&str| {
        name.strip_prefix("cu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
    };
    let functions: Vec<&str> = functions_in(&source).into_iter().filter(is_driver_function).collect();
    ensure!(functions.contains(&"cuInit"), "{} names no function cuInit", bindings.display());
    let about =
        "/* Every function of the driver, on a machine without GPU: 100 is CUDA_ERROR_NO_DEVICE. */\n";
    let mut code = vec![about.to_owned()];
    code.extend(functions.iter().map(|function| format!("int {function}(void) {{ return 100; }}\n")));
    let code = code.concat();
    let (file, library) = (dir.join("libcuda.c"), dir.join("libcuda.so"));
    let alias = dir.join("libcuda.so.1");
    let same =
        || std::fs::read(&library).is_ok_and(|bytes| std::fs::read(&alias).is_ok_and(|of| of == bytes));
    if std::fs::read_to_string(&file).is_ok_and(|old| old == code) && same() {
        return Ok(());
    }
    write(&file, &code)?;
    run(Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-w", "-fno-builtin", "-Wl,-soname,libcuda.so.1", "-o"])
        .args([&library, &file]))
    .context("the stub of libcuda needs a C compiler called `cc`")?;
    // The compiler puts a new file in the old one's place, which an old link would still show.
    if alias.exists() {
        std::fs::remove_file(&alias).with_context(|| format!("can't remove {}", alias.display()))?;
    }
    std::fs::hard_link(&library, &alias).with_context(|| format!("can't link {}", alias.display()))
}

/// The program that stands in for nvcc, and the functions it puts in place of those left out.
pub(super) fn write_slim_nvcc(dir: &Path, interface: &Path) -> Result<()> {
    let source = std::fs::read_to_string(interface)
        .with_context(|| format!("can't read candle's interface to its kernels, {}", interface.display()))?;
    let functions = functions_in(&source);
    ensure!(!functions.is_empty(), "{} names no function", interface.display());
    let about = "#include <stdio.h>\n#include <stdlib.h>\n\
         static int left_out(const char *name) {\n    \
         fprintf(stderr, \"%s: this program was built without kernels for quantised and mixture-of-experts \
         products (cargo xtask cuda-toolkit --all-kernels has them)\\n\", name);\n    abort();\n}\n";
    let mut code = vec![about.to_owned()];
    let stub = |function: &&str| format!("int {function}(void) {{ return left_out(\"{function}\"); }}\n");
    code.extend(functions.iter().map(stub));
    let code = code.concat();
    write(&dir.join("left-out.c"), &code)?;
    let program = dir.join("nvcc");
    write(&program, SLIM_NVCC)?;
    make_executable(&program)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{functions_in, write_driver_stub};

    #[test]
    fn functions_are_found_by_their_names() {
        let source = "pub unsafe fn cuInit(flags: u32);\nfn cuMemAlloc_v2<T>();// fn \n";
        assert_eq!(functions_in(source).into_iter().collect::<Vec<_>>(), ["cuInit", "cuMemAlloc_v2"]);
    }

    #[test]
    #[cfg(unix)]
    fn both_names_of_the_driver_are_one_file_however_often_it_is_compiled() {
        let folder = tempfile::tempdir().unwrap();
        let (library, alias) = (folder.path().join("libcuda.so"), folder.path().join("libcuda.so.1"));
        let bindings = folder.path().join("bindings.rs");
        for source in ["fn cuInit()", "fn cuInit() fn cuMemAlloc_v2()", "fn cuInit() fn cuMemAlloc_v2()"] {
            std::fs::write(&bindings, source).unwrap();
            write_driver_stub(folder.path(), &bindings).unwrap();
            assert!(std::fs::read(&library).unwrap() == std::fs::read(&alias).unwrap(), "{source}");
            // One that an older version left behind.
            std::fs::remove_file(&alias).unwrap();
            std::fs::write(&alias, "stale").unwrap();
        }
    }
}
