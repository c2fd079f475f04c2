// Operations on every element of a matrix of `count` elements with rows of `width`, together with vectors of one row's
// width. An absent vector is a null pointer.
#include "numbers.cuh"

#define ELEMENT                                                                                                        \
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;                                                    \
    if (i >= count) return;                                                                                            \
    const u32 column = i % width;

// The forms in the order of `cuda::Form` in Rust.
enum { GELU_ERF, GELU_TANH, GELU_QUICK, SILU, IDENTITY };

// sqrt(2 / pi), and the cubic term of GELU's tanh form.
#define TANH_SCALE 0.7978845608028654f
#define TANH_CUBIC 0.044715f
#define QUICK_SCALE 1.702f

__device__ inline float logistic(float x) { return 1.f / (1.f + expf(-x)); }

__device__ inline float activation(float x, u32 form) {
    switch (form) {
    case GELU_ERF: return 0.5f * x * erfcf(x * -0.7071067811865476f); // 1 + erf would cancel for negative x
    case GELU_TANH: return 0.5f * x * (1.f + tanhf(TANH_SCALE * (x + TANH_CUBIC * x * x * x)));
    case GELU_QUICK: return x * logistic(QUICK_SCALE * x);
    case SILU: return x * logistic(x);
    default: return x;
    }
}

__device__ inline float activation_slope(float x, u32 form) {
    switch (form) {
    case GELU_ERF: {
        const float below = 0.5f * erfcf(x * -0.7071067811865476f);
        return below + x * 0.3989422804014327f * expf(-0.5f * x * x); // 1 / sqrt(2 pi)
    }
    case GELU_TANH: {
        const float t = tanhf(TANH_SCALE * (x + TANH_CUBIC * x * x * x));
        const float inner = TANH_SCALE * (1.f + 3.f * TANH_CUBIC * x * x);
        return 0.5f * (1.f + t) + 0.5f * x * (1.f - t * t) * inner;
    }
    case GELU_QUICK: {
        const float s = logistic(QUICK_SCALE * x);
        return s + QUICK_SCALE * x * s * (1.f - s);
    }
    case SILU: {
        const float s = logistic(x);
        return s + x * s * (1.f - s);
    }
    default: return 1.f;
    }
}

// f(x + bias)
template <typename T>
__device__ void bias_activation_forward(const T* x, const T* bias, T* out, size_t count, u32 width, u32 form) {
    ELEMENT
    const float biased = wide(x[i]) + (bias ? wide(bias[column]) : 0.f);
    out[i] = narrow<T>(activation(biased, form));
}

// gradient * f'(x + bias)
template <typename T>
__device__ void bias_activation_backward(const T* x, const T* bias, const T* gradient, T* out, size_t count, u32 width,
                                         u32 form) {
    ELEMENT
    const float biased = wide(x[i]) + (bias ? wide(bias[column]) : 0.f);
    out[i] = narrow<T>(wide(gradient[i]) * activation_slope(biased, form));
}

// x + scale * (branch + bias)
template <typename T>
__device__ void residual_forward(const T* x, const T* branch, const T* bias, const T* scale, T* out, size_t count,
                                 u32 width) {
    ELEMENT
    const float biased = wide(branch[i]) + (bias ? wide(bias[column]) : 0.f);
    out[i] = narrow<T>(wide(x[i]) + (scale ? wide(scale[column]) : 1.f) * biased);
}

// x * scale
template <typename T> __device__ void scale_columns(const T* x, const T* scale, T* out, size_t count, u32 width) {
    ELEMENT
    out[i] = narrow<T>(wide(x[i]) * wide(scale[column]));
}

#define DECLARE(T, name)                                                                                               \
    extern "C" __global__ void bias_activation_forward_##name(const T* x, const T* bias, T* out, size_t count,         \
                                                              u32 width, u32 form) {                                   \
        bias_activation_forward<T>(x, bias, out, count, width, form);                                                  \
    }                                                                                                                  \
    LIST_KERNEL(bias_activation_forward_##name)                                                                        \
    extern "C" __global__ void bias_activation_backward_##name(const T* x, const T* bias, const T* gradient, T* out,   \
                                                               size_t count, u32 width, u32 form) {                    \
        bias_activation_backward<T>(x, bias, gradient, out, count, width, form);                                       \
    }                                                                                                                  \
    LIST_KERNEL(bias_activation_backward_##name)                                                                       \
    extern "C" __global__ void residual_forward_##name(const T* x, const T* branch, const T* bias, const T* scale,     \
                                                       T* out, size_t count, u32 width) {                              \
        residual_forward<T>(x, branch, bias, scale, out, count, width);                                                \
    }                                                                                                                  \
    LIST_KERNEL(residual_forward_##name)                                                                               \
    extern "C" __global__ void scale_columns_##name(const T* x, const T* scale, T* out, size_t count, u32 width) {     \
        scale_columns<T>(x, scale, out, count, width);                                                                 \
    }                                                                                                                  \
    LIST_KERNEL(scale_columns_##name)

FOR_EACH_TYPE(DECLARE)
