// The locks of Boost.Interprocess, as workers of `commonhold bench locks`.
//
// Speaks the protocol of protocol.rs and runs the same loops as worker.rs, so that only the lock differs.

#if !__has_include(<boost/interprocess/sync/interprocess_sharable_mutex.hpp>)
#error there are no headers of Boost.Interprocess: install libboost-dev
#else

#include <boost/interprocess/file_mapping.hpp>
#include <boost/interprocess/mapped_region.hpp>
#include <boost/interprocess/sync/interprocess_condition.hpp>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/interprocess_sharable_mutex.hpp>
#include <boost/interprocess/sync/scoped_lock.hpp>
#include <boost/interprocess/sync/sharable_lock.hpp>

#include <sys/prctl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace ipc = boost::interprocess;

using Numbers = std::vector<std::uint64_t>;

// The contents of the file; each part has its own cache lines.
template <class Mutex>
struct Shared {
    alignas(64) Mutex mutex;
    alignas(64) ipc::interprocess_condition condition;
    alignas(64) std::atomic<std::uint64_t> count{0};
    std::atomic<std::uint64_t> again{0};
    std::atomic<std::uint64_t> turn{0};
};

constexpr auto relaxed = std::memory_order_relaxed;

std::uint64_t now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return std::uint64_t(time.tv_sec) * 1'000'000'000 + std::uint64_t(time.tv_nsec);
}

void pause_for(std::uint64_t ns) {
    timespec time{time_t(ns / 1'000'000'000), long(ns % 1'000'000'000)};
    nanosleep(&time, nullptr);
}

void sleep_until(std::uint64_t from) {
    const std::uint64_t at = now();
    if (from > at) pause_for(from - at);
}

template <class Turn>
Numbers solo(std::uint64_t ns, Turn turn) {
    // The number that is incremented or read under the lock.
    std::atomic<std::uint64_t> number{0};
    std::uint64_t times = 0;
    const std::uint64_t began = now();
    for (;;) {
        for (int i = 0; i < 500; ++i) turn(number);
        times += 500;
        const std::uint64_t took = now() - began;
        if (took >= ns) return {times, took};
    }
}

template <class Mutex>
Numbers write(Shared<Mutex>& shared, std::uint64_t from, std::uint64_t until, std::uint64_t pause) {
    sleep_until(from);
    std::uint64_t times = 0, longest = 0, asked = now();
    while (asked < until) {
        std::uint64_t got;
        {
            ipc::scoped_lock<Mutex> guard(shared.mutex);
            got = now();
            const std::uint64_t count = shared.count.load(relaxed) + 1;
            shared.count.store(count, relaxed);
            shared.again.store(count, relaxed);
        }
        longest = std::max(longest, got - asked);
        ++times;
        if (pause > 0) pause_for(pause);
        asked = now();
    }
    return {times, longest};
}

// The sharable mutex: what differs from the plain one.
struct Sharable {
    using Mutex = ipc::interprocess_sharable_mutex;

    static Numbers solo_read(Shared<Mutex>& shared, std::uint64_t ns) {
        return solo(ns, [&](auto& number) {
            ipc::sharable_lock<Mutex> guard(shared.mutex);
            static_cast<void>(number.load(relaxed));
        });
    }

    static Numbers read(Shared<Mutex>& shared, std::uint64_t from, std::uint64_t until) {
        sleep_until(from);
        std::uint64_t times = 0;
        while (now() < until) {
            for (int i = 0; i < 50; ++i) {
                ipc::sharable_lock<Mutex> guard(shared.mutex);
                if (shared.count.load(relaxed) != shared.again.load(relaxed))
                    throw std::runtime_error("a reader saw half of what a writer wrote");
            }
            times += 50;
        }
        return {times};
    }

    static void await_turn(Shared<Mutex>&, std::uint64_t) {
        throw std::runtime_error("this lock cannot be passed on");
    }

    static void give_turn(Shared<Mutex>&, std::uint64_t) {}
};

struct Plain {
    using Mutex = ipc::interprocess_mutex;

    static Numbers solo_read(Shared<Mutex>&, std::uint64_t) {
        throw std::runtime_error("this lock cannot be read");
    }

    static Numbers read(Shared<Mutex>&, std::uint64_t, std::uint64_t) {
        throw std::runtime_error("this lock cannot be read");
    }

    static void await_turn(Shared<Mutex>& shared, std::uint64_t side) {
        ipc::scoped_lock<Mutex> guard(shared.mutex);
        while (shared.turn.load(relaxed) != side) shared.condition.wait(guard);
    }

    static void give_turn(Shared<Mutex>& shared, std::uint64_t side) {
        {
            ipc::scoped_lock<Mutex> guard(shared.mutex);
            shared.turn.store(1 - side, relaxed);
        }
        shared.condition.notify_one();
    }
};

template <class Kind, class Mutex = typename Kind::Mutex>
Numbers pass(Shared<Mutex>& shared, std::uint64_t side, std::uint64_t times, std::uint64_t keep) {
    Numbers between;
    std::uint64_t last = 0;
    for (std::uint64_t i = 0; i < times; ++i) {
        Kind::await_turn(shared, side);
        const std::uint64_t at = now();
        if (i > 0 && side == 0) between.push_back(at - last);
        last = at;
        while (now() - at < keep) {}
        Kind::give_turn(shared, side);
    }
    return between;
}

template <class Kind, class Mutex = typename Kind::Mutex>
Numbers perform(Shared<Mutex>& shared, const std::string& verb, const Numbers& n) {
    if (verb == "solo-write" && n.size() == 1)
        return solo(n[0], [&](auto& number) {
            ipc::scoped_lock<Mutex> guard(shared.mutex);
            number.store(number.load(relaxed) + 1, relaxed);
        });
    if (verb == "solo-read" && n.size() == 1) return Kind::solo_read(shared, n[0]);
    if (verb == "write" && n.size() == 3) return write(shared, n[0], n[1], n[2]);
    if (verb == "read" && n.size() == 2) return Kind::read(shared, n[0], n[1]);
    if (verb == "count" && n.empty()) return {shared.count.load(relaxed)};
    if (verb == "pass" && n.size() == 3) return pass<Kind>(shared, n[0], n[1], n[2]);
    throw std::runtime_error("no such request: " + verb);
}

template <class Kind>
void serve(const std::string& place, bool make) {
    using Layout = Shared<typename Kind::Mutex>;
    if (make) {
        std::ofstream file(place, std::ios::binary);
        file << std::string(sizeof(Layout), '\0');
    }
    ipc::file_mapping file(place.c_str(), ipc::read_write);
    ipc::mapped_region region(file, ipc::read_write, 0, sizeof(Layout));
    void* const base = region.get_address();
    Layout& shared = make ? *new (base) Layout : *std::launder(static_cast<Layout*>(base));
    std::cout << "ok" << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
        try {
            std::istringstream words(line);
            std::string verb;
            words >> verb;
            Numbers numbers;
            for (std::uint64_t number; words >> number;) numbers.push_back(number);
            std::ostringstream answer;
            answer << "ok";
            for (const std::uint64_t number : perform<Kind>(shared, verb, numbers))
                answer << ' ' << number;
            std::cout << answer.str() << std::endl;
        } catch (const std::exception& error) {
            std::cout << "error " << error.what() << std::endl;
        }
    }
}

int main(int argc, char** argv) try {
    std::string parent, lock, place;
    bool make = false;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (option == "--make") {
            make = true;
        } else if (i + 1 < argc) {
            (option == "--parent" ? parent : option == "--lock" ? lock : place) = argv[++i];
        }
    }
    // Die with the parent, which may be gone already.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (std::to_string(getppid()) != parent) return 1;
    if (lock == "boost-mutex") {
        serve<Plain>(place, make);
    } else if (lock == "boost-sharable") {
        serve<Sharable>(place, make);
    } else {
        throw std::runtime_error("no such lock: " + lock);
    }
} catch (const std::exception& error) {
    std::cout << "error " << error.what() << std::endl;
    return 1;
}

#endif
