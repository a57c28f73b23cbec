// Products on the matrix unit of a processor that has one (Intel AMX): sixteen rows times sixteen columns an instruction.
// Its tiles are sixteen rows of 64 bytes. Rows of activations, panels of weights, pages of keys and of values are tiles as
// they lie, so nothing is packed differently for it.
#pragma once

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

constexpr size_t EDGE = 16;  // rows of a tile, its columns as sums, and its units as operands

namespace amx {

// Whether the processor and the system let this process use tiles of bfloat16 and of 8-bit numbers.
inline bool available() {
#ifndef __AVX512F__  // what goes with the tiles is compiled for the processors that have them
    return false;
#endif
    constexpr unsigned BF16 = 1u << 22, TILE = 1u << 24, INT8 = 1u << 25, ALL = BF16 | TILE | INT8;
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & ALL) != ALL) return false;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

// While it lives, this thread's tiles are whole ones. Others (oneDNN) configure them for themselves.
class Configured {
  public:
    Configured() {
        Configuration whole = {};
        whole.palette = 1;
        for (int i = 0; i < 8; ++i) whole.row_bytes[i] = 64, whole.rows[i] = EDGE;
        asm volatile("ldtilecfg %0" ::"m"(whole));
    }
    ~Configured() { asm volatile("tilerelease"); }
    Configured(const Configured&) = delete;
    Configured& operator=(const Configured&) = delete;

  private:
    struct alignas(64) Configuration {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    };
};

template <int TILE>
inline void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(TILE));
}
template <int TILE>
inline void load(const uint32_t* from, size_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride * 4), "i"(TILE) : "memory");
}
template <int TILE>
inline void store(void* to, size_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride * 4), "i"(TILE) : "memory");
}

// Sums of R x C tiles, R, C ≤ 2: in tiles 0 to 3; 4 and 5 hold rows, 6 and 7 columns.
template <class Dtype, int R, int C>
struct Sums {
    static void clear() {
        zero<0>();
        if constexpr (C == 2) zero<1>();
        if constexpr (R == 2) zero<2>();
        if constexpr (R == 2 && C == 2) zero<3>();
    }

    // Add Σ_step a[row][step] · b[step][column]; `steps` units, a multiple of sixteen. Strides are units. meanwhile() is
    // called after every sixteen: other work that may go on beside.
    template <class Meanwhile>
    [[gnu::always_inline]] static void add(const uint32_t* a, size_t a_stride, const uint32_t* b, size_t b_stride,
                                           size_t steps, const Meanwhile& meanwhile) {
        for (size_t step = 0; step < steps; step += EDGE, a += EDGE, b += EDGE * b_stride) {
            load<6>(b, b_stride);
            load<4>(a, a_stride);
            Dtype::template tile_dot<0, 4, 6>();
            if constexpr (C == 2) {
                load<7>(b + EDGE, b_stride);
                Dtype::template tile_dot<1, 4, 7>();
            }
            if constexpr (R == 2) {
                load<5>(a + EDGE * a_stride, a_stride);
                Dtype::template tile_dot<2, 5, 6>();
            }
            if constexpr (R == 2 && C == 2) Dtype::template tile_dot<3, 5, 7>();
            meanwhile();
        }
    }
    static void add(const uint32_t* a, size_t a_stride, const uint32_t* b, size_t b_stride, size_t steps) {
        add(a, a_stride, b, b_stride, steps, [] {});
    }

    static void keep(void* to, size_t stride) {
        auto* place = static_cast<uint32_t*>(to);
        store<0>(place, stride);
        if constexpr (C == 2) store<1>(place + EDGE, stride);
        if constexpr (R == 2) store<2>(place + EDGE * stride, stride);
        if constexpr (R == 2 && C == 2) store<3>(place + EDGE * stride + EDGE, stride);
    }

    // For sums that go on from what was kept.
    static void take(const void* from, size_t stride) {
        const auto* place = static_cast<const uint32_t*>(from);
        load<0>(place, stride);
        if constexpr (C == 2) load<1>(place + EDGE, stride);
        if constexpr (R == 2) load<2>(place + EDGE * stride, stride);
        if constexpr (R == 2 && C == 2) load<3>(place + EDGE * stride + EDGE, stride);
    }
};

}  // namespace amx
