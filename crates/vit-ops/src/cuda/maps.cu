// A fixed linear map along one axis: resampling and filtering. Its table lists for each output the inputs it is made of.
#include "numbers.cuh"

// x is (p, inputs, inner), out (p, outputs, inner), one thread an element. table: outputs + 1 starts, then the input of
// each tap; output o has the taps from table[o] to table[o + 1]. The same kernel maps a gradient back, by the table of
// the transposed map.
template <typename T>
__device__ void map_axis(const T* x, const u32* table, const float* weights, T* out, size_t count, u32 inputs,
                         u32 outputs, u32 inner) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const size_t line = i / inner;
    const u32 output = line % outputs;
    const T* const from = x + line / outputs * inputs * inner + i % inner;
    const u32* const taps = table + outputs + 1;
    float sum = 0.f;
    for (u32 tap = table[output]; tap < table[output + 1]; ++tap)
        sum += weights[tap] * wide(from[(size_t)taps[tap] * inner]);
    out[i] = narrow<T>(sum);
}

#define DECLARE(T, name)                                                                                               \
    extern "C" __global__ void map_axis_##name(const T* x, const u32* table, const float* weights, T* out,             \
                                               size_t count, u32 inputs, u32 outputs, u32 inner) {                     \
        map_axis<T>(x, table, weights, out, count, inputs, outputs, inner);                                            \
    }                                                                                                                  \
    LIST_KERNEL(map_axis_##name)

FOR_EACH_TYPE(DECLARE)
