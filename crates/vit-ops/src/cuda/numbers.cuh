// The types of numbers that the kernels read and write. All arithmetic is in f32.
#pragma once

#ifdef KERNELS_ON_HOST
#include "host.h" // the tests run the kernels on the host
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef __half f16;
typedef __nv_bfloat16 bf16;

__device__ inline float wide(float value) { return value; }
__device__ inline float wide(f16 value) { return __half2float(value); }
__device__ inline float wide(bf16 value) { return __bfloat162float(value); }

template <typename T> __device__ inline T narrow(float value);
template <> __device__ inline float narrow<float>(float value) { return value; }
template <> __device__ inline f16 narrow<f16>(float value) { return __float2half_rn(value); }
template <> __device__ inline bf16 narrow<bf16>(float value) { return __float2bfloat16_rn(value); }

// Only the host's list of kernels needs to hear of them.
#define LIST_KERNEL(name)
#endif

typedef unsigned int u32;

// One copy of `declare` per type and the name it has in Rust.
#define FOR_EACH_TYPE(declare) declare(float, f32) declare(f16, f16) declare(bf16, bf16)

// Sums and maxima over the 32 threads of a warp; every thread gets the result.
__device__ inline float warp_sum(float value) {
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}

__device__ inline float warp_max(float value) {
    for (int offset = 16; offset > 0; offset /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
    return value;
}
