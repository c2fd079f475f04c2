// Multi-head attention without an N x N matrix: tiles of keys pass by a tile of queries, whose softmax is kept up to
// date as they come (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135). The backward
// pass computes the probabilities again, tile by tile. Plain f32 arithmetic, no tensor cores.
//
// A block of 16 x 16 threads works on tiles of 16 R tokens; thread (ty, tx) owns the rows ty + 16 i and, of a tile of
// products or of channels, the columns tx + 16 j. The 16 threads of a row are half a warp.
#include "numbers.cuh"

#define SIDE 16
#define THREADS (SIDE * SIDE)
#define LOWEST (-3.402823466e38f) // the most negative finite f32

// As `AttentionShape` in Rust, word by word.
struct Shape {
    u32 heads, tokens, width;                    // H, N, d
    u32 batch_stride, head_stride, token_stride; // of q, k, v alike, in elements; channels lie side by side
    u32 bias_strides[4], mask_strides[4];        // batch, head, query, key; 0 where broadcast
    float scale;
};

// What a pair of a query and a key is worth, beside their product. Each pointer may be null.
template <typename T> struct Pairs {
    const T* bias;             // added to the scaled product
    const unsigned char* mask; // 0: the query may not attend to the key
    const T* keep;             // dropout: what the probability is multiplied by, (B, H, N, N)
};

struct Place {
    u32 batch, head, tile;
    size_t input; // where this head of this image starts in q, k, v
};

__device__ inline Place place(const Shape& shape, u32 tile_rows) {
    const u32 tiles = (shape.tokens + tile_rows - 1) / tile_rows;
    Place here;
    here.tile = blockIdx.x % tiles;
    here.head = blockIdx.x / tiles % shape.heads;
    here.batch = blockIdx.x / tiles / shape.heads;
    here.input = (size_t)here.batch * shape.batch_stride + (size_t)here.head * shape.head_stride;
    return here;
}

// Copies tokens first.. of one head to shared memory; what lies outside of the tokens or the channels is 0.
template <typename T, int ROWS, int D>
__device__ inline void load_tile(float (*tile)[D + 1], const T* data, u32 stride, u32 first, const Shape& shape) {
    for (u32 i = threadIdx.x; i < ROWS * D; i += THREADS) {
        const u32 row = i / D, channel = i % D;
        const bool inside = first + row < shape.tokens && channel < shape.width;
        tile[row][channel] = inside ? wide(data[(size_t)(first + row) * stride + channel]) : 0.f;
    }
}

// out[i][j] = a[ty + 16 i] . b[tx + 16 j]
template <int R, int D>
__device__ inline void products(const float (*a)[D + 1], const float (*b)[D + 1], u32 ty, u32 tx, float (&out)[R][R]) {
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < R; ++j) out[i][j] = 0.f;
#pragma unroll 8
    for (int channel = 0; channel < D; ++channel) {
#pragma unroll
        for (int i = 0; i < R; ++i)
#pragma unroll
            for (int j = 0; j < R; ++j) out[i][j] += a[ty + SIDE * i][channel] * b[tx + SIDE * j][channel];
    }
}

// total[i][c] += sum over r of weights[ty + 16 i][r] * tile[r][tx + 16 c]
template <int R, int D>
__device__ inline void accumulate(const float (*weights)[SIDE * R + 1], const float (*tile)[D + 1], u32 ty, u32 tx,
                                  float (&total)[R][D / SIDE]) {
#pragma unroll 4
    for (int r = 0; r < SIDE * R; ++r) {
#pragma unroll
        for (int i = 0; i < R; ++i)
#pragma unroll
            for (int c = 0; c < D / SIDE; ++c)
                total[i][c] += weights[ty + SIDE * i][r] * tile[r][tx + SIDE * c];
    }
}

// The gradients or results of a tile's rows, to where token `first` starts in `out`.
template <typename T, int R, int D>
__device__ inline void store_rows(T* out, u32 stride, u32 first, u32 ty, u32 tx, const Shape& shape,
                                  const float (&total)[R][D / SIDE], const float (&factor)[R]) {
    for (int i = 0; i < R; ++i) {
        const u32 token = first + ty + SIDE * i;
        for (int c = 0; c < D / SIDE; ++c) {
            const u32 channel = tx + SIDE * c;
            if (token < shape.tokens && channel < shape.width)
                out[(size_t)token * stride + channel] = narrow<T>(total[i][c] * factor[i]);
        }
    }
}

template <typename T>
__device__ inline bool allowed(const Pairs<T>& pairs, const Shape& shape, const Place& here, u32 query, u32 key) {
    if (query >= shape.tokens || key >= shape.tokens) return false;
    if (!pairs.mask) return true;
    const u32* strides = shape.mask_strides;
    return pairs.mask[(size_t)here.batch * strides[0] + (size_t)here.head * strides[1] + (size_t)query * strides[2] +
                      (size_t)key * strides[3]] != 0;
}

// The logit of a pair. A masked pair gets the lowest number, so that a query without any key attends to all evenly; a
// pair outside of the image gets -inf, which is never attended to.
template <typename T>
__device__ inline float logit(float product, const Pairs<T>& pairs, const Shape& shape, const Place& here, u32 query,
                              u32 key) {
    if (query >= shape.tokens || key >= shape.tokens) return -INFINITY;
    if (!allowed(pairs, shape, here, query, key)) return LOWEST;
    float value = product * shape.scale;
    if (pairs.bias) {
        const u32* strides = shape.bias_strides;
        value += wide(pairs.bias[(size_t)here.batch * strides[0] + (size_t)here.head * strides[1] +
                                 (size_t)query * strides[2] + (size_t)key * strides[3]]);
    }
    return value;
}

// The place of a pair in (B, H, N, N).
__device__ inline size_t pair_index(const Shape& shape, const Place& here, u32 query, u32 key) {
    return (((size_t)here.batch * shape.heads + here.head) * shape.tokens + query) * shape.tokens + key;
}

// Dropout's factor of a pair.
template <typename T>
__device__ inline float kept(const Pairs<T>& pairs, const Shape& shape, const Place& here, u32 query, u32 key) {
    if (!pairs.keep || query >= shape.tokens || key >= shape.tokens) return 1.f;
    return wide(pairs.keep[pair_index(shape, here, query, key)]);
}

// out (B, N, H, d). `stats` (B, H, N, 2), if not null, gets what the backward pass needs of every query: its largest
// logit and one over the sum of the exponentials.
template <typename T, int R, int D>
__device__ void attention_forward(const T* q, const T* k, const T* v, Pairs<T> pairs, T* out, float* stats,
                                  const Shape& shape) {
    const int ROWS = SIDE * R;
    __shared__ float queries[ROWS][D + 1], others[ROWS][D + 1], shares[ROWS][ROWS + 1];
    const Place here = place(shape, ROWS);
    const u32 tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE, first_query = here.tile * ROWS;
    load_tile<T, ROWS, D>(queries, q + here.input, shape.token_stride, first_query, shape);
    float top[R], sum[R], total[R][D / SIDE];
    for (int i = 0; i < R; ++i) {
        top[i] = -INFINITY;
        sum[i] = 0.f;
        for (int c = 0; c < D / SIDE; ++c) total[i][c] = 0.f;
    }
    for (u32 first = 0; first < shape.tokens; first += ROWS) {
        __syncthreads(); // the values of the round before are done with
        load_tile<T, ROWS, D>(others, k + here.input, shape.token_stride, first, shape);
        __syncthreads();
        float scores[R][R];
        products<R, D>(queries, others, ty, tx, scores);
#pragma unroll
        for (int i = 0; i < R; ++i) {
            const u32 query = first_query + ty + SIDE * i;
            float largest = top[i];
#pragma unroll
            for (int j = 0; j < R; ++j) {
                scores[i][j] = logit(scores[i][j], pairs, shape, here, query, first + tx + SIDE * j);
                largest = fmaxf(largest, scores[i][j]);
            }
            for (int offset = SIDE / 2; offset > 0; offset /= 2)
                largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
            // While every logit is -inf, subtract 0: inf - inf would be NaN before the row is known.
            const float base = largest == -INFINITY ? 0.f : largest;
            const float shrink = expf(top[i] - base);
            float part = 0.f;
#pragma unroll
            for (int j = 0; j < R; ++j) {
                const float share = expf(scores[i][j] - base);
                part += share;
                const float keep = kept(pairs, shape, here, query, first + tx + SIDE * j);
                shares[ty + SIDE * i][tx + SIDE * j] = share * keep;
            }
            for (int offset = SIDE / 2; offset > 0; offset /= 2)
                part += __shfl_xor_sync(0xffffffffu, part, offset);
            sum[i] = sum[i] * shrink + part;
            top[i] = largest;
            for (int c = 0; c < D / SIDE; ++c) total[i][c] *= shrink;
        }
        __syncthreads(); // the keys are done with, the shares complete
        load_tile<T, ROWS, D>(others, v + here.input, shape.token_stride, first, shape);
        __syncthreads();
        accumulate<R, D>(shares, others, ty, tx, total);
    }
    float factor[R];
    for (int i = 0; i < R; ++i) factor[i] = 1.f / sum[i];
    const u32 stride = shape.heads * shape.width;
    T* const head = out + (size_t)here.batch * shape.tokens * stride + (size_t)here.head * shape.width;
    store_rows<T, R, D>(head, stride, first_query, ty, tx, shape, total, factor);
    if (stats && tx == 0) {
        for (int i = 0; i < R; ++i) {
            const u32 query = first_query + ty + SIDE * i;
            if (query < shape.tokens) {
                const size_t row = ((size_t)here.batch * shape.heads + here.head) * shape.tokens + query;
                stats[2 * row] = top[i];
                stats[2 * row + 1] = factor[i];
            }
        }
    }
}

// One warp a row: the products of two matrices (rows, width), summed over each row. Of the context and its gradient,
// (B, N, H, d), that is `delta` (B, N, H): the mean slope that a query's softmax takes away.
template <typename T> __device__ void row_products(const T* a, const T* b, float* out, u32 rows, u32 width) {
    const u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    float sum = 0.f;
    for (u32 i = lane; i < width; i += 32) sum += wide(a[(size_t)row * width + i]) * wide(b[(size_t)row * width + i]);
    sum = warp_sum(sum);
    if (lane == 0) out[row] = sum;
}

// What the backward pass knows of a query: its largest logit, one over its sum, and its delta.
struct Row {
    float top, factor, delta;
};

__device__ inline Row row_of(const float* stats, const float* delta, const Shape& shape, const Place& here, u32 query) {
    if (query >= shape.tokens) return Row{0.f, 0.f, 0.f};
    const size_t row = ((size_t)here.batch * shape.heads + here.head) * shape.tokens + query;
    const size_t token = (size_t)here.batch * shape.tokens + query;
    return Row{stats[2 * row], stats[2 * row + 1], delta[token * shape.heads + here.head]};
}

// The gradient of the queries, with the strides of q, and of the logits if `bias_gradient` (B, H, N, N) is not null.
template <typename T, int R, int D>
__device__ void attention_backward_queries(const T* q, const T* k, const T* v, Pairs<T> pairs, const T* gradient,
                                           const float* stats, const float* delta, T* out, T* bias_gradient,
                                           const Shape& shape) {
    const int ROWS = SIDE * R;
    __shared__ float queries[ROWS][D + 1], gradients[ROWS][D + 1], keys[ROWS][D + 1], values[ROWS][D + 1];
    __shared__ float slopes[ROWS][ROWS + 1];
    const Place here = place(shape, ROWS);
    const u32 tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE, first_query = here.tile * ROWS;
    const u32 stride = shape.heads * shape.width;
    const size_t head = (size_t)here.batch * shape.tokens * stride + (size_t)here.head * shape.width;
    load_tile<T, ROWS, D>(queries, q + here.input, shape.token_stride, first_query, shape);
    load_tile<T, ROWS, D>(gradients, gradient + head, stride, first_query, shape);
    Row rows[R];
    float total[R][D / SIDE];
    for (int i = 0; i < R; ++i) {
        rows[i] = row_of(stats, delta, shape, here, first_query + ty + SIDE * i);
        for (int c = 0; c < D / SIDE; ++c) total[i][c] = 0.f;
    }
    for (u32 first = 0; first < shape.tokens; first += ROWS) {
        __syncthreads(); // the keys and slopes of the round before are done with
        load_tile<T, ROWS, D>(keys, k + here.input, shape.token_stride, first, shape);
        load_tile<T, ROWS, D>(values, v + here.input, shape.token_stride, first, shape);
        __syncthreads();
        float scores[R][R], weights[R][R];
        products<R, D>(queries, keys, ty, tx, scores);
        products<R, D>(gradients, values, ty, tx, weights);
#pragma unroll
        for (int i = 0; i < R; ++i) {
            const u32 query = first_query + ty + SIDE * i;
#pragma unroll
            for (int j = 0; j < R; ++j) {
                const u32 key = first + tx + SIDE * j;
                const float value = logit(scores[i][j], pairs, shape, here, query, key);
                const float share = expf(value - rows[i].top) * rows[i].factor;
                const float keep = kept(pairs, shape, here, query, key);
                // A masked logit is a constant.
                const bool open = allowed(pairs, shape, here, query, key);
                const float slope = open ? share * (weights[i][j] * keep - rows[i].delta) : 0.f;
                if (bias_gradient && query < shape.tokens && key < shape.tokens)
                    bias_gradient[pair_index(shape, here, query, key)] = narrow<T>(slope);
                slopes[ty + SIDE * i][tx + SIDE * j] = slope;
            }
        }
        __syncthreads();
        accumulate<R, D>(slopes, keys, ty, tx, total);
    }
    float factor[R];
    for (int i = 0; i < R; ++i) factor[i] = shape.scale;
    store_rows<T, R, D>(out + here.input, shape.token_stride, first_query, ty, tx, shape, total, factor);
}

// The gradients of a tile of keys and values, to `out` plus the two offsets, with the strides of q.
template <typename T, int R, int D>
__device__ void attention_backward_keys(const T* q, const T* k, const T* v, Pairs<T> pairs, const T* gradient,
                                        const float* stats, const float* delta, T* out, size_t keys_offset,
                                        size_t values_offset, const Shape& shape) {
    const int ROWS = SIDE * R;
    __shared__ float queries[ROWS][D + 1], gradients[ROWS][D + 1], keys[ROWS][D + 1], values[ROWS][D + 1];
    __shared__ float shares[ROWS][ROWS + 1], slopes[ROWS][ROWS + 1]; // a row a key, a column a query
    const Place here = place(shape, ROWS);
    const u32 tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE, first_key = here.tile * ROWS;
    const u32 stride = shape.heads * shape.width;
    const size_t head = (size_t)here.batch * shape.tokens * stride + (size_t)here.head * shape.width;
    load_tile<T, ROWS, D>(keys, k + here.input, shape.token_stride, first_key, shape);
    load_tile<T, ROWS, D>(values, v + here.input, shape.token_stride, first_key, shape);
    float of_keys[R][D / SIDE], of_values[R][D / SIDE];
    for (int i = 0; i < R; ++i)
        for (int c = 0; c < D / SIDE; ++c) of_keys[i][c] = of_values[i][c] = 0.f;
    for (u32 first = 0; first < shape.tokens; first += ROWS) {
        __syncthreads(); // everything of the round before is done with
        load_tile<T, ROWS, D>(queries, q + here.input, shape.token_stride, first, shape);
        load_tile<T, ROWS, D>(gradients, gradient + head, stride, first, shape);
        __syncthreads();
        float scores[R][R], weights[R][R];
        products<R, D>(keys, queries, ty, tx, scores);
        products<R, D>(values, gradients, ty, tx, weights);
#pragma unroll
        for (int j = 0; j < R; ++j) {
            const u32 query = first + tx + SIDE * j;
            const Row row = row_of(stats, delta, shape, here, query);
#pragma unroll
            for (int i = 0; i < R; ++i) {
                const u32 key = first_key + ty + SIDE * i;
                const float value = logit(scores[i][j], pairs, shape, here, query, key);
                const float share = expf(value - row.top) * row.factor;
                const float keep = kept(pairs, shape, here, query, key);
                const bool open = allowed(pairs, shape, here, query, key);
                shares[ty + SIDE * i][tx + SIDE * j] = share * keep;
                slopes[ty + SIDE * i][tx + SIDE * j] = open ? share * (weights[i][j] * keep - row.delta) : 0.f;
            }
        }
        __syncthreads();
        accumulate<R, D>(shares, gradients, ty, tx, of_values);
        accumulate<R, D>(slopes, queries, ty, tx, of_keys);
    }
    float scale[R], one[R];
    for (int i = 0; i < R; ++i) {
        scale[i] = shape.scale;
        one[i] = 1.f;
    }
    T* const start = out + here.input;
    store_rows<T, R, D>(start + keys_offset, shape.token_stride, first_key, ty, tx, shape, of_keys, scale);
    store_rows<T, R, D>(start + values_offset, shape.token_stride, first_key, ty, tx, shape, of_values, one);
}

// D: the next size that a head's width fits in; R so that the tiles fit in 48 KiB of shared memory.
#define DECLARE_WIDTH(T, name, D, R)                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
        attention_forward_##D##_##name(const T* q, const T* k, const T* v, const T* bias, const unsigned char* mask,   \
                                       const T* keep, T* out, float* stats, Shape shape) {                             \
        attention_forward<T, R, D>(q, k, v, Pairs<T>{bias, mask, keep}, out, stats, shape);                            \
    }                                                                                                                  \
    LIST_KERNEL(attention_forward_##D##_##name)                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_backward_queries_##D##_##name(                     \
        const T* q, const T* k, const T* v, const T* bias, const unsigned char* mask, const T* keep,                   \
        const T* gradient, const float* stats, const float* delta, T* out, T* bias_gradient, Shape shape) {            \
        attention_backward_queries<T, R, D>(q, k, v, Pairs<T>{bias, mask, keep}, gradient, stats, delta, out,          \
                                            bias_gradient, shape);                                                     \
    }                                                                                                                  \
    LIST_KERNEL(attention_backward_queries_##D##_##name)                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_backward_keys_##D##_##name(                        \
        const T* q, const T* k, const T* v, const T* bias, const unsigned char* mask, const T* keep,                   \
        const T* gradient, const float* stats, const float* delta, T* out, size_t keys_offset, size_t values_offset,   \
        Shape shape) {                                                                                                 \
        attention_backward_keys<T, R, D>(q, k, v, Pairs<T>{bias, mask, keep}, gradient, stats, delta, out,             \
                                         keys_offset, values_offset, shape);                                           \
    }                                                                                                                  \
    LIST_KERNEL(attention_backward_keys_##D##_##name)

#define DECLARE(T, name)                                                                                               \
    extern "C" __global__ void row_products_##name(const T* a, const T* b, float* out, u32 rows, u32 width) {          \
        row_products<T>(a, b, out, rows, width);                                                                       \
    }                                                                                                                  \
    LIST_KERNEL(row_products_##name)                                                                                   \
    DECLARE_WIDTH(T, name, 32, 2)                                                                                      \
    DECLARE_WIDTH(T, name, 64, 2)                                                                                      \
    DECLARE_WIDTH(T, name, 128, 1)

FOR_EACH_TYPE(DECLARE)
