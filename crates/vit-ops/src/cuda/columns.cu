// Sums over the rows of a matrix, as the gradients of biases, scales and norm weights need them, in two steps of a
// fixed order: the same inputs give the same bits, which atomic additions would not.
#include "numbers.cuh"

#define TILE_COLUMNS 32
#define TILE_ROWS 8

// What the second sum multiplies the gradient with.
enum { GRADIENT_ONLY, NORMED, BIASED };

// First step. A block of 32 x 8 threads sums `rows_each` rows of 32 columns: blockIdx.x names the columns, blockIdx.y
// the rows. parts (gridDim.y, 2, width): first the sums of g, then those of g * f, with f
//   NORMED: x normed, from the moments `stats` (rows, 2) that layer_norm_backward left;
//   BIASED: x + bias (bias may be null).
template <typename T>
__device__ void column_parts(const T* gradient, const T* x, const T* bias, const float* stats, float* parts, u32 rows,
                             u32 width, u32 rows_each, u32 kind) {
    __shared__ float sums[2][TILE_ROWS][TILE_COLUMNS];
    const u32 lane = threadIdx.x % TILE_COLUMNS, line = threadIdx.x / TILE_COLUMNS;
    const u32 column = blockIdx.x * TILE_COLUMNS + lane;
    const u32 first = blockIdx.y * rows_each;
    const u32 end = min(rows, first + rows_each);
    float plain = 0.f, weighted = 0.f;
    if (column < width) {
        for (u32 row = first + line; row < end; row += TILE_ROWS) {
            const size_t i = (size_t)row * width + column;
            const float g = wide(gradient[i]);
            plain += g;
            if (kind == NORMED) weighted += g * (wide(x[i]) - stats[2 * (size_t)row]) * stats[2 * (size_t)row + 1];
            if (kind == BIASED) weighted += g * (wide(x[i]) + (bias ? wide(bias[column]) : 0.f));
        }
    }
    sums[0][line][lane] = plain;
    sums[1][line][lane] = weighted;
    __syncthreads();
    if (line < 2 && column < width) { // the first line of threads adds up the plain sums, the second the weighted
        float sum = 0.f;
        for (u32 l = 0; l < TILE_ROWS; ++l) sum += sums[line][l][lane];
        parts[((size_t)blockIdx.y * 2 + line) * width + column] = sum;
    }
}

// Second step, a thread a column: out[column] = (sum over the parts of sums `which`) * scale[column] (null: 1).
template <typename T>
__device__ void column_finish(const float* parts, const T* scale, T* out, u32 count, u32 width, u32 which) {
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    float sum = 0.f;
    for (u32 part = 0; part < count; ++part) sum += parts[((size_t)part * 2 + which) * width + column];
    out[column] = narrow<T>(sum * (scale ? wide(scale[column]) : 1.f));
}

#define DECLARE(T, name)                                                                                               \
    extern "C" __global__ void column_parts_##name(const T* gradient, const T* x, const T* bias, const float* stats,   \
                                                   float* parts, u32 rows, u32 width, u32 rows_each, u32 kind) {       \
        column_parts<T>(gradient, x, bias, stats, parts, rows, width, rows_each, kind);                                \
    }                                                                                                                  \
    LIST_KERNEL(column_parts_##name)                                                                                   \
    extern "C" __global__ void column_finish_##name(const float* parts, const T* scale, T* out, u32 count, u32 width,  \
                                                    u32 which) {                                                       \
        column_finish<T>(parts, scale, out, count, width, which);                                                      \
    }                                                                                                                  \
    LIST_KERNEL(column_finish_##name)

FOR_EACH_TYPE(DECLARE)
