// Operations over the rows of a matrix: one warp a row, so that no block-wide barrier is needed. A row is read more
// than once; from the second time on it comes from the cache.
#include "numbers.cuh"

// The row of this warp, and this thread's place in it.
#define ROW_AND_LANE                                                                                                   \
    const u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;                                                 \
    const u32 lane = threadIdx.x % 32;                                                                                 \
    if (row >= rows) return; /* the whole warp leaves: the shuffles below miss nobody */                               \
    const size_t start = (size_t)row * width;

// The mean of a row and one over its standard deviation. The mean is subtracted before squaring: E[x^2] - E[x]^2 would
// lose digits where the mean is large against the spread.
template <typename T>
__device__ inline void moments(const T* x, u32 width, u32 lane, float eps, float& mean, float& scale) {
    float sum = 0.f;
    for (u32 i = lane; i < width; i += 32) sum += wide(x[i]);
    mean = warp_sum(sum) / width;
    float squares = 0.f;
    for (u32 i = lane; i < width; i += 32) {
        const float centred = wide(x[i]) - mean;
        squares += centred * centred;
    }
    scale = 1.f / sqrtf(warp_sum(squares) / width + eps);
}

template <typename T>
__device__ void layer_norm_forward(const T* x, const T* weight, const T* bias, T* out, u32 rows, u32 width, float eps) {
    ROW_AND_LANE
    float mean, scale;
    moments(x + start, width, lane, eps, mean, scale);
    for (u32 i = lane; i < width; i += 32)
        out[start + i] = narrow<T>((wide(x[start + i]) - mean) * scale * wide(weight[i]) + wide(bias[i]));
}

// The gradient of x; the moments of every row go to `stats` (rows, 2) for the sums over columns (columns.cu).
template <typename T>
__device__ void layer_norm_backward(const T* x, const T* weight, const T* gradient, T* out, float* stats, u32 rows,
                                    u32 width, float eps) {
    ROW_AND_LANE
    float mean, scale;
    moments(x + start, width, lane, eps, mean, scale);
    float level = 0.f, slope = 0.f;
    for (u32 i = lane; i < width; i += 32) {
        const float scaled = wide(gradient[start + i]) * wide(weight[i]);
        level += scaled;
        slope += scaled * (wide(x[start + i]) - mean) * scale;
    }
    level = warp_sum(level) / width;
    slope = warp_sum(slope) / width;
    for (u32 i = lane; i < width; i += 32) {
        const float scaled = wide(gradient[start + i]) * wide(weight[i]);
        const float normed = (wide(x[start + i]) - mean) * scale;
        out[start + i] = narrow<T>(scale * (scaled - level - normed * slope));
    }
    if (lane == 0) {
        stats[2 * (size_t)row] = mean;
        stats[2 * (size_t)row + 1] = scale;
    }
}

template <typename T> __device__ void softmax_forward(const T* x, T* out, u32 rows, u32 width) {
    ROW_AND_LANE
    float max = -INFINITY;
    for (u32 i = lane; i < width; i += 32) max = fmaxf(max, wide(x[start + i]));
    max = warp_max(max);
    float sum = 0.f;
    for (u32 i = lane; i < width; i += 32) sum += expf(wide(x[start + i]) - max);
    const float share = 1.f / warp_sum(sum);
    for (u32 i = lane; i < width; i += 32) out[start + i] = narrow<T>(expf(wide(x[start + i]) - max) * share);
}

// From the result y and its gradient g: y (g - sum(y g)).
template <typename T> __device__ void softmax_backward(const T* y, const T* gradient, T* out, u32 rows, u32 width) {
    ROW_AND_LANE
    float sum = 0.f;
    for (u32 i = lane; i < width; i += 32) sum += wide(y[start + i]) * wide(gradient[start + i]);
    sum = warp_sum(sum);
    for (u32 i = lane; i < width; i += 32)
        out[start + i] = narrow<T>(wide(y[start + i]) * (wide(gradient[start + i]) - sum));
}

#define DECLARE(T, name)                                                                                               \
    extern "C" __global__ void layer_norm_forward_##name(const T* x, const T* weight, const T* bias, T* out,           \
                                                         u32 rows, u32 width, float eps) {                             \
        layer_norm_forward<T>(x, weight, bias, out, rows, width, eps);                                                 \
    }                                                                                                                  \
    LIST_KERNEL(layer_norm_forward_##name)                                                                             \
    extern "C" __global__ void layer_norm_backward_##name(const T* x, const T* weight, const T* gradient, T* out,      \
                                                          float* stats, u32 rows, u32 width, float eps) {              \
        layer_norm_backward<T>(x, weight, gradient, out, stats, rows, width, eps);                                     \
    }                                                                                                                  \
    LIST_KERNEL(layer_norm_backward_##name)                                                                            \
    extern "C" __global__ void softmax_forward_##name(const T* x, T* out, u32 rows, u32 width) {                       \
        softmax_forward<T>(x, out, rows, width);                                                                       \
    }                                                                                                                  \
    LIST_KERNEL(softmax_forward_##name)                                                                                \
    extern "C" __global__ void softmax_backward_##name(const T* y, const T* gradient, T* out, u32 rows, u32 width) {   \
        softmax_backward<T>(y, gradient, out, rows, width);                                                            \
    }                                                                                                                  \
    LIST_KERNEL(softmax_backward_##name)

FOR_EACH_TYPE(DECLARE)
