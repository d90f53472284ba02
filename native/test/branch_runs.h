// Programs of image steps with and without places that values share, and what they give.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "test/branches.h"

namespace openwork::test {

// Makes the outputs of a program. The first is what is looked at most closely; the others are asked for as they are.
using Build = std::function<std::vector<int>(Branches&)>;
using Bytes = std::vector<uint8_t>;

// `all`: every value is an output besides. An output lies where the caller has it, so that no place is shared.
std::shared_ptr<const Program> build(const KernelTable& table, const Build& steps, bool all);

// The first `outputs` outputs for random images. What the caller gives ends at a page which may not be touched.
std::vector<Bytes> run(const std::shared_ptr<const Program>& program, int threads, int64_t batch, size_t outputs);

// The first output, each home's memory ending at a page which may not be touched, but for the bytes that steps read on.
Bytes run_guarded(const Program& program, int64_t batch);

// On every instruction set, with and without shared places: `count` is `expected` and 0, and the bits are the same, of slices, on
// threads, and with a page behind each place which may not be touched.
void check_runs(const std::string& what, const Build& steps, int64_t (*count)(const Program&), int64_t expected);

// The same of random programs on the best instruction set: the bits are the same, and `count` is not 0 in all of them.
void check_random_runs(std::vector<int> (*steps)(Branches&, std::mt19937&), int64_t (*count)(const Program&));

}  // namespace openwork::test
