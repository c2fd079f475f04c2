// Runs one kernel: reads what and on which arrays from standard input, writes the arrays back to standard output.
// Numbers are u64, little-endian, as host.rs writes them.
#include "host.h"
#include <cstdio>
#include <cstdlib>
#include <ucontext.h>

Index gridDim, blockDim, blockIdx, threadIdx;

void refuse(const std::string& problem) {
    std::fprintf(stderr, "%s\n", problem.c_str());
    std::exit(1);
}

std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };

struct Thread {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(64 << 10);
    State state;
    float shuffled;
};

static std::vector<Thread> threads;
static ucontext_t scheduler;
static unsigned current;
static const Kernel* kernel;
static const std::vector<Argument>* arguments;

static void wait(State state) {
    threads[current].state = state;
    swapcontext(&threads[current].context, &scheduler);
}

void __syncthreads() { wait(AT_BLOCK_BARRIER); }

float __shfl_xor_sync(unsigned, float value, int offset) {
    threads[current].shuffled = value;
    wait(AT_WARP_BARRIER); // until every thread of the warp has given its value
    const float received = threads[current ^ (unsigned)offset].shuffled;
    wait(AT_WARP_BARRIER); // until every thread has taken one
    return received;
}

static void thread_main() {
    (*kernel)(*arguments);
    threads[current].state = DONE;
}

// Lets threads first..end go on if each of them waits at `barrier` or is done, and some wait. A block's barrier is for
// all of its threads.
static bool release(unsigned first, unsigned end, State barrier) {
    bool waiting = false, done = false;
    for (unsigned i = first; i < end; ++i) {
        if (threads[i].state != barrier && threads[i].state != DONE) return false;
        waiting |= threads[i].state == barrier;
        done |= threads[i].state == DONE;
    }
    if (barrier == AT_BLOCK_BARRIER && waiting && done) refuse("some threads end where others wait");
    for (unsigned i = first; i < end; ++i)
        if (threads[i].state == barrier) threads[i].state = READY;
    return waiting;
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
    for (bool going = true; going;) {
        going = false;
        for (unsigned i = 0; i < count; ++i) {
            current = backward ? count - 1 - i : i;
            if (threads[current].state != READY) continue;
            threadIdx = Index{current, 0, 0};
            swapcontext(&scheduler, &threads[current].context);
            going = true;
        }
        for (unsigned first = 0; first < count; first += 32)
            going |= release(first, first + 32 < count ? first + 32 : count, AT_WARP_BARRIER);
        going |= release(0, count, AT_BLOCK_BARRIER);
    }
    for (const Thread& thread : threads)
        if (thread.state != DONE) refuse("threads wait for each other for ever");
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
    std::string name(number(), ' ');
    read_exactly(&name[0], name.size());
    const auto found = kernels().find(name);
    if (found == kernels().end()) refuse("there is no kernel " + name);
    gridDim.x = number();
    gridDim.y = number();
    gridDim.z = 1;
    blockDim = Index{(unsigned)number(), 1, 1};
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
    std::vector<Argument> given(number());
    for (Argument& argument : given) {
        argument.element = number(); // 0: a number's bytes follow; else an array's index and offset, or no array
        if (argument.element) {
            const uint64_t index = number(), offset = number();
            unsigned char* const address = index < arrays.size() ? arrays[index].bytes.data() + offset : nullptr;
            argument.bytes.resize(sizeof address);
            std::memcpy(argument.bytes.data(), &address, sizeof address);
        } else {
            argument.bytes.resize(number());
            read_exactly(argument.bytes.data(), argument.bytes.size());
        }
    }

    kernel = &found->second;
    arguments = &given;
    threads = std::vector<Thread>(blockDim.x);
    for (unsigned y = 0; y < gridDim.y; ++y) {
        for (unsigned x = 0; x < gridDim.x; ++x) {
            blockIdx = Index{x, y, 0};
            run_block(backward);
        }
    }
    for (const Array& array : arrays) {
        for (size_t i = 0; i < margin; ++i)
            if (array.bytes[array.size + i] != 0xa5) refuse(name + " writes beyond an array's end");
        std::fwrite(array.bytes.data(), 1, array.size, stdout);
    }
    return 0;
}
