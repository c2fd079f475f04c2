// Stands in for CUDA so that the tests can run the kernels on the host (host.rs): block after block, the threads of
// a block as coroutines that take turns at barriers and shuffles. For checking results, not for speed.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static // blocks run one after another
#define __launch_bounds__(threads)

struct Index {
    unsigned x, y, z;
};
extern Index gridDim, blockDim, blockIdx, threadIdx;

void __syncthreads();
float __shfl_xor_sync(unsigned threads, float value, int offset);

inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

inline float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint32_t to_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float wide(float value) { return value; }
inline float wide(bf16 value) { return from_bits((uint32_t)value.bits << 16); }
inline float wide(f16 value) {
    const uint32_t sign = (value.bits & 0x8000u) << 16, exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
    if (exponent == 0) return (sign ? -1.f : 1.f) * std::ldexp((float)fraction, -24);
    return from_bits(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13);
}

// To the nearest number, ties to the even one.
template <typename T> T narrow(float value);
template <> inline float narrow<float>(float value) { return value; }
template <> inline bf16 narrow<bf16>(float value) {
    const uint32_t bits = to_bits(value);
    if (std::isnan(value)) return bf16{0x7fff};
    return bf16{(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <> inline f16 narrow<f16>(float value) {
    const uint32_t bits = to_bits(value), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (std::isnan(value)) return f16{0x7fff};
    if (size >= 0x47800000) return f16{(uint16_t)(sign | 0x7c00)}; // 65536 and more
    if (size < 0x38800000) return f16{(uint16_t)(sign | (uint32_t)std::nearbyint(std::ldexp(from_bits(size), 24)))};
    return f16{(uint16_t)(sign | (size + 0xfff + (size >> 13 & 1) - 0x38000000) >> 13)};
}

// An argument of a kernel as it came from the test: its bytes; for an array also the size of its elements.
struct Argument {
    std::vector<unsigned char> bytes;
    size_t element; // 0: no array
};

[[noreturn]] void refuse(const std::string& problem);

template <typename A> A take(const std::string& kernel, size_t place, const Argument& argument) {
    const std::string where = kernel + ", argument " + std::to_string(place);
    if (argument.bytes.size() != sizeof(A)) refuse(where + ": wrong size");
    if (std::is_pointer<A>::value != (argument.element != 0)) refuse(where + ": an array for a number, or the reverse");
    A value;
    std::memcpy(&value, argument.bytes.data(), sizeof value);
    if constexpr (std::is_pointer<A>::value) {
        if (value && argument.element != sizeof(*value)) refuse(where + ": elements of another size");
    }
    return value;
}

using Kernel = std::function<void(const std::vector<Argument>&)>;
std::map<std::string, Kernel>& kernels();

template <typename... A, size_t... I>
void call(void (*kernel)(A...), const std::string& name, const std::vector<Argument>& arguments,
          std::index_sequence<I...>) {
    if (arguments.size() != sizeof...(A)) refuse(name + ": wrong number of arguments");
    kernel(take<A>(name, I, arguments[I])...);
}

struct Listed {
    template <typename... A> Listed(const char* name, void (*kernel)(A...)) {
        const std::string copy = name;
        kernels()[copy] = [=](const std::vector<Argument>& arguments) {
            call(kernel, copy, arguments, std::index_sequence_for<A...>());
        };
    }
};

#define LIST_KERNEL(name) static Listed listed_##name(#name, name);
