// What this machine does at most, measured: the products of its registers and the reads of its memory.
#pragma once

#include "kernels/table.h"

namespace openwork {

// Multiplications and additions a second of the dot product of `type` on `threads` threads, each in registers alone: the best
// of a few runs of a fraction of a millisecond. Throws std::invalid_argument for a number of threads that no pool takes.
double peak_rate(const KernelTable& table, Type type, int threads);

// Bytes a second that `threads` threads read, each over and over from `bytes` bytes of its own: the best of a few runs. Throws
// std::invalid_argument for less than 512 bytes, or a number of threads that no pool takes.
double read_rate(const KernelTable& table, int64_t bytes, int threads);

}  // namespace openwork
