// Pieces are claimed one by one rather than dealt out: the caller never waits for a helper that sleeps, or that a busy
// machine has put aside, only for pieces begun. OpenMP deals out; and it lets helpers go to sleep between any two
// products once two threads of Python have started helpers of their own, which an engine's thread always does.
#include "threads.h"

#include <immintrin.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>

namespace {

constexpr uint64_t SPIN = 400'000;  // ticks of the processor's clock, 0.1 to 0.2 ms: the next product comes sooner
constexpr int BITS = 24;            // of a number of pieces
constexpr uint64_t MOST = (1ull << BITS) - 1;

struct Pool {
    std::mutex one_caller;
    std::atomic<int> wanted{0};       // helpers
    int started = 0;
    std::atomic<uint64_t> ticket{0};  // job (16 bits), number of pieces, next piece
    std::atomic<const std::function<void(long)>*> work{nullptr};
    std::atomic<long> done{0};
    std::atomic<uint32_t> calls{0};   // what sleeping helpers wait for a change of
    std::atomic<int> asleep{0};

    static bool open(uint64_t ticket) { return (ticket & MOST) < (ticket >> BITS & MOST); }

    // Claims and does one piece. Once claimed, its job cannot end, so what `work` points to is its own.
    bool help() {
        if (!open(ticket.load())) return false;
        const uint64_t claimed = ticket.fetch_add(1);
        if (!open(claimed)) return false;
        (*work.load())((long)(claimed & MOST));
        done.fetch_add(1);
        return true;
    }

    void helper(int number) {
        for (uint64_t since = __rdtsc();;) {
            if (number < wanted.load() && help()) {
                since = __rdtsc();
            } else if (__rdtsc() - since < SPIN) {
                _mm_pause();
            } else {
                const uint32_t seen = calls.load();
                asleep.fetch_add(1);
                if (!open(ticket.load()) || number >= wanted.load()) calls.wait(seen);
                asleep.fetch_sub(1);
                since = __rdtsc();
            }
        }
    }
};

// Never destroyed: helpers may still be waiting when the process ends.
Pool& pool() {
    static Pool* const only = new Pool;
    return *only;
}

}  // namespace

void share(long count, const std::function<void(long)>& work) {
    Pool& p = pool();
    std::unique_lock<std::mutex> lock(p.one_caller, std::try_to_lock);
    if (count < 2 || count > (long)MOST || !lock.owns_lock() || p.wanted.load() == 0) {
        for (long i = 0; i < count; i++) work(i);
        return;
    }
    for (; p.started < p.wanted.load(); p.started++)
        std::thread([&p, number = p.started] { p.helper(number); }).detach();
    p.work = &work;
    p.done = 0;
    p.ticket = ((p.ticket.load() >> 2 * BITS) + 1) << 2 * BITS | (uint64_t)count << BITS;
    p.calls.fetch_add(1);
    if (p.asleep.load()) p.calls.notify_all();
    while (p.help()) {
    }
    for (long spins = 0; p.done.load() < count; spins++) {
        if (spins < 10'000)
            _mm_pause();
        else
            std::this_thread::yield();  // its helper may need this very processor
    }
}

long threads() { return pool().wanted.load() + 1; }

// How many threads work together from now on, the calling one included.
extern "C" void windlass_threads(long count) { pool().wanted = count > 1 ? (int)count - 1 : 0; }
