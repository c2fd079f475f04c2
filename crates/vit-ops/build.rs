//! With the feature `cuda`: compiles the kernels to PTX.

#[cfg_attr(not(feature = "cuda"), allow(clippy::unnecessary_wraps))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    {
        let kernels = cudaforge::KernelBuilder::new()
            .source_dir("src/cuda")
            .watch(["src/cuda/numbers.cuh"])
            .args(["-std=c++17", "-O3"])
            .build_ptx()?;
        let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?;
        kernels.write(std::path::Path::new(&out).join("ptx.rs"))?;
    }
    Ok(())
}
