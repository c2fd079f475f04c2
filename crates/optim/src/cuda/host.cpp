// Stands in for CUDA so that the tests can run a kernel on the host (on_host.rs): block after block, the threads of a
// block as coroutines that take turns at barriers. KERNEL is the file of the kernel's text. Reads the launch and the
// arrays from standard input and writes the arrays back to standard output; numbers are u64, little-endian, as
// on_host.rs writes them. For checking results, not for speed.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __shared__ static // blocks run one after another
#define __launch_bounds__(threads)

struct Index {
    unsigned x, y, z;
};
static Index gridDim, blockIdx, threadIdx;

static void __syncthreads();

#include KERNEL

[[noreturn]] static void refuse(const std::string& problem) {
    std::fprintf(stderr, "%s\n", problem.c_str());
    std::exit(1);
}

// An argument as it came from the test: its bytes; for an array also the size of its elements.
struct Argument {
    std::vector<unsigned char> bytes;
    size_t element; // 0: no array
};

template <typename A> static A take(size_t place, const Argument& argument) {
    const std::string where = "argument " + std::to_string(place);
    if (argument.bytes.size() != sizeof(A)) refuse(where + ": wrong size");
    if (std::is_pointer<A>::value != (argument.element != 0)) refuse(where + ": an array for a number, or the reverse");
    if constexpr (std::is_pointer<A>::value) {
        if (argument.element != sizeof(std::remove_pointer_t<A>)) refuse(where + ": elements of another size");
    }
    A value;
    std::memcpy(&value, argument.bytes.data(), sizeof value);
    return value;
}

template <typename... A, size_t... I>
static void call(void (*kernel)(A...), const std::vector<Argument>& arguments, std::index_sequence<I...>) {
    if (arguments.size() != sizeof...(A)) refuse("wrong number of arguments");
    kernel(take<A>(I, arguments[I])...);
}

template <typename... A> static void call(void (*kernel)(A...), const std::vector<Argument>& arguments) {
    call(kernel, arguments, std::index_sequence_for<A...>());
}

enum State { READY, AT_BARRIER, DONE };

struct Thread {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(64 << 10);
    State state;
};

static std::vector<Thread> threads;
static ucontext_t scheduler;
static unsigned current;
static std::vector<Argument> arguments;

static void __syncthreads() {
    threads[current].state = AT_BARRIER;
    swapcontext(&threads[current].context, &scheduler);
}

static void thread_main() {
    call(step, arguments);
    threads[current].state = DONE;
}

static void run_block(bool backward) {
    const unsigned count = threads.size();
    for (Thread& thread : threads) {
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.data();
        thread.context.uc_stack.ss_size = thread.stack.size();
        thread.context.uc_link = &scheduler;
        makecontext(&thread.context, thread_main, 0);
        thread.state = READY;
    }
    for (unsigned done = 0; done < count;) {
        done = 0;
        for (unsigned i = 0; i < count; ++i) {
            current = backward ? count - 1 - i : i;
            threadIdx = Index{current, 0, 0};
            swapcontext(&scheduler, &threads[current].context);
            done += threads[current].state == DONE;
        }
        // A barrier is for all threads of a block.
        if (done != 0 && done != count) refuse("some threads end where others wait");
    }
}

static void read_exactly(void* to, size_t size) {
    if (size && std::fread(to, 1, size, stdin) != size) refuse("the request ends early");
}

static uint64_t number() {
    uint64_t value;
    read_exactly(&value, sizeof value);
    return value;
}

int main() {
    gridDim = Index{(unsigned)number(), 1, 1};
    threads = std::vector<Thread>(number());
    const bool backward = number();

    struct Array {
        std::vector<unsigned char> bytes;
        size_t size;
    };
    const size_t margin = 256; // behind each array, to see writes beyond its end
    std::vector<Array> arrays(number());
    for (Array& array : arrays) {
        array.size = number();
        array.bytes.assign(array.size + margin, 0xa5);
        read_exactly(array.bytes.data(), array.size);
    }
    arguments = std::vector<Argument>(number());
    for (Argument& argument : arguments) {
        argument.element = number(); // 0: a number's bytes follow; else an array's index and offset
        if (argument.element) {
            const uint64_t index = number(), offset = number();
            if (index >= arrays.size()) refuse("there is no such array");
            unsigned char* const address = arrays[index].bytes.data() + offset;
            argument.bytes.resize(sizeof address);
            std::memcpy(argument.bytes.data(), &address, sizeof address);
        } else {
            argument.bytes.resize(number());
            read_exactly(argument.bytes.data(), argument.bytes.size());
        }
    }

    for (unsigned x = 0; x < gridDim.x; ++x) {
        blockIdx = Index{x, 0, 0};
        run_block(backward);
    }
    for (const Array& array : arrays) {
        for (size_t i = 0; i < margin; ++i)
            if (array.bytes[array.size + i] != 0xa5) refuse("the kernel writes beyond an array's end");
        std::fwrite(array.bytes.data(), 1, array.size, stdout);
    }
    return 0;
}
