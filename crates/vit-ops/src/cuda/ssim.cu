// Structural similarity. The five moments of a window (of x, y, x^2, y^2 and xy, in this order, one array behind the
// other) stay in f32 whatever the images' type: a variance is the small difference of two of them.
#include "numbers.cuh"

#define MOMENTS 5

// The moments along the last axis: x and y are (p, inputs), out (5, p, outputs); count is p * outputs. The table is as in
// maps.cu.
template <typename T>
__device__ void ssim_moments(const T* x, const T* y, const u32* table, const float* weights, float* out, size_t count,
                             u32 inputs, u32 outputs) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const u32 output = i % outputs;
    const size_t start = i / outputs * inputs;
    const u32* const taps = table + outputs + 1;
    float sums[MOMENTS] = {0.f, 0.f, 0.f, 0.f, 0.f};
    for (u32 tap = table[output]; tap < table[output + 1]; ++tap) {
        const float weight = weights[tap], a = wide(x[start + taps[tap]]), b = wide(y[start + taps[tap]]);
        sums[0] += weight * a;
        sums[1] += weight * b;
        sums[2] += weight * (a * a);
        sums[3] += weight * (b * b);
        sums[4] += weight * (a * b);
    }
    for (u32 moment = 0; moment < MOMENTS; ++moment) out[moment * count + i] = sums[moment];
}

// The map's four factors: it is above * spread_above / (below * spread_below).
struct Factors {
    float mean_x, mean_y, above, spread_above, below, spread_below;
};

__device__ inline Factors factors(const float* moments, size_t count, size_t i, float c1, float c2) {
    const float a = moments[i], b = moments[count + i];
    const float aa = a * a, bb = b * b, ab = a * b;
    Factors f;
    f.mean_x = a;
    f.mean_y = b;
    f.above = 2.f * ab + c1;
    f.spread_above = 2.f * (moments[4 * count + i] - ab) + c2;
    f.below = aa + bb + c1;
    f.spread_below = (moments[2 * count + i] - aa) + (moments[3 * count + i] - bb) + c2;
    return f;
}

// The similarity of each window from its moments (5, count).
template <typename T>
__device__ void ssim_map(const float* moments, T* out, size_t count, float c1, float c2) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const Factors f = factors(moments, count, i, c1, c2);
    out[i] = narrow<T>(f.above * f.spread_above / (f.below * f.spread_below));
}

// The gradients of the moments (5, count) from that of the map.
template <typename T>
__device__ void ssim_map_backward(const float* moments, const T* gradient, float* out, size_t count, float c1,
                                  float c2) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const Factors f = factors(moments, count, i, c1, c2);
    const float share = wide(gradient[i]) / (f.below * f.spread_below);
    const float value = f.above * f.spread_above / (f.below * f.spread_below);
    const float across = 2.f * (f.spread_above - f.above), along = 2.f * value * (f.spread_below - f.below);
    out[i] = share * (f.mean_y * across - f.mean_x * along);
    out[count + i] = share * (f.mean_x * across - f.mean_y * along);
    out[2 * count + i] = -share * value * f.below;
    out[3 * count + i] = -share * value * f.below;
    out[4 * count + i] = 2.f * share * f.above;
}

// From the gradients of the moments along the last axis, (5, p, outputs), those of x and y, (2, p, inputs); count is
// p * inputs. The table is that of the transposed map.
template <typename T>
__device__ void ssim_moments_backward(const T* x, const T* y, const u32* table, const float* weights,
                                      const float* gradient, T* out, size_t count, u32 inputs, u32 outputs) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const u32 input = i % inputs;
    const size_t row = i / inputs;
    const size_t each = count / inputs * outputs;
    const u32* const taps = table + inputs + 1;
    float sums[MOMENTS] = {0.f, 0.f, 0.f, 0.f, 0.f};
    for (u32 tap = table[input]; tap < table[input + 1]; ++tap)
        for (u32 moment = 0; moment < MOMENTS; ++moment)
            sums[moment] += weights[tap] * gradient[moment * each + row * outputs + taps[tap]];
    const float a = wide(x[i]), b = wide(y[i]);
    out[i] = narrow<T>(sums[0] + 2.f * a * sums[2] + b * sums[4]);
    out[count + i] = narrow<T>(sums[1] + 2.f * b * sums[3] + a * sums[4]);
}

#define DECLARE(T, name)                                                                                               \
    extern "C" __global__ void ssim_moments_##name(const T* x, const T* y, const u32* table, const float* weights,     \
                                                   float* out, size_t count, u32 inputs, u32 outputs) {                \
        ssim_moments<T>(x, y, table, weights, out, count, inputs, outputs);                                            \
    }                                                                                                                  \
    LIST_KERNEL(ssim_moments_##name)                                                                                   \
    extern "C" __global__ void ssim_map_##name(const float* moments, T* out, size_t count, float c1, float c2) {       \
        ssim_map<T>(moments, out, count, c1, c2);                                                                      \
    }                                                                                                                  \
    LIST_KERNEL(ssim_map_##name)                                                                                       \
    extern "C" __global__ void ssim_map_backward_##name(const float* moments, const T* gradient, float* out,           \
                                                        size_t count, float c1, float c2) {                            \
        ssim_map_backward<T>(moments, gradient, out, count, c1, c2);                                                   \
    }                                                                                                                  \
    LIST_KERNEL(ssim_map_backward_##name)                                                                              \
    extern "C" __global__ void ssim_moments_backward_##name(const T* x, const T* y, const u32* table,                  \
                                                            const float* weights, const float* gradient, T* out,       \
                                                            size_t count, u32 inputs, u32 outputs) {                   \
        ssim_moments_backward<T>(x, y, table, weights, gradient, out, count, inputs, outputs);                         \
    }                                                                                                                  \
    LIST_KERNEL(ssim_moments_backward_##name)

FOR_EACH_TYPE(DECLARE)
