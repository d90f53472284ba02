#include "test/branch_runs.h"
#include "test/guarded.h"
#include "test/harness.h"
#include "test/tables.h"

#include <algorithm>
#include <random>

#include "runtime/context.h"

namespace openwork::test {

std::shared_ptr<const Program> build(const KernelTable& table, const Build& steps, bool all) {
  Branches branches(table, 3);
  std::vector<int> outputs = steps(branches);
  if (all)
    for (int v = 1; v < static_cast<int>(branches.program->values().size()); ++v)
      if (std::count(outputs.begin(), outputs.end(), v) == 0) outputs.push_back(v);
  branches.program->finish({branches.x}, outputs);
  return branches.program;
}

namespace {

Bytes random_images(int64_t batch) {
  std::mt19937 rng(17);
  Bytes x(static_cast<size_t>(batch * kHeight * kWidth * kChannels));
  for (auto& byte : x) byte = static_cast<uint8_t>(rng());
  return x;
}

}  // namespace

std::vector<Bytes> run(const std::shared_ptr<const Program>& program, int threads, int64_t batch, size_t outputs) {
  const Bytes x = random_images(batch);
  const Guarded guarded(x.data(), x.size(), 0);
  Context context(program, threads, 2);
  const auto made = context.run({{DType::u8, {batch, kHeight, kWidth, kChannels}, guarded.data()}});
  std::vector<Bytes> found;
  for (size_t i = 0; i < outputs; ++i) {
    const auto* data = made[i].buffer.as<uint8_t>();
    found.emplace_back(data, data + made[i].buffer.bytes());
  }
  return found;
}

Bytes run_guarded(const Program& program, int64_t batch) {
  const auto plan = make_plan(program, {{batch}}, 1);
  const Bytes x = random_images(batch);
  std::vector<std::unique_ptr<Guarded>> memory;
  Buffers buffers;
  for (int v = 0; v < static_cast<int>(program.values().size()); ++v) {
    const int width = dtype_bytes(program.values()[static_cast<size_t>(v)].dtype);
    bool ahead = false;
    for (const Step& step : program.steps())
      for (const Read& read : step.reads) ahead = ahead || (read.ahead && program.home(read.value) == v);
    const auto bytes = static_cast<size_t>(plan->sizes.elements(v) * width);
    const size_t slack = ahead ? read_ahead(static_cast<size_t>(width)) : 0;
    memory.push_back(std::make_unique<Guarded>(v == program.inputs()[0] ? x.data() : nullptr, bytes, slack));
  }
  for (int v = 0; v < static_cast<int>(memory.size()); ++v) {
    const Home& home = program.home_of(v);
    buffers.values.push_back(memory[static_cast<size_t>(home.value)]->data() + home.offset);
  }
  const AlignedBuffer scratch(plan->scratch_stride);
  buffers.scratch = scratch.data();
  for (const Work& work : plan->work) work.run(buffers, {0, work.units, 0});
  const int y = program.outputs()[0];
  const auto* data = buffers.get<const uint8_t>(y);
  return {data, data + plan->sizes.elements(y) * dtype_bytes(program.values()[static_cast<size_t>(y)].dtype)};
}

void check_runs(const std::string& what, const Build& steps, int64_t (*count)(const Program&), int64_t expected) {
  for (const KernelTable* table : own_tables()) {
    Branches counted(*table, 3);
    const size_t outputs = steps(counted).size();
    const auto shared = build(*table, steps, false), apart = build(*table, steps, true);
    CHECK_SAY(count(*shared) == expected && count(*apart) == 0, what + ": " + std::to_string(count(*shared)));
    // 10 images make slices, and a rest on all threads.
    for (const int64_t batch : {1, 3, 10}) {
      const auto bits = run(apart, 1, batch, outputs);
      for (const int threads : {1, 2, 3})
        CHECK_SAY(run(shared, threads, batch, outputs) == bits,
                  what + " on " + table->isa + ", " + std::to_string(threads) + " threads, batch " + std::to_string(batch));
      CHECK_SAY(run_guarded(*shared, batch) == bits[0], what + " on " + table->isa + ", guarded, batch " + std::to_string(batch));
    }
  }
}

void check_random_runs(std::vector<int> (*steps)(Branches&, std::mt19937&), int64_t (*count)(const Program&)) {
  int64_t found = 0;
  const KernelTable& table = *available_tables().front();
  for (unsigned seed = 0; seed < random_problems(150); ++seed) {
    const Build drawn = [seed, steps](Branches& b) {
      std::mt19937 rng(seed);
      return steps(b, rng);
    };
    Branches counted(table, 3);
    const size_t outputs = drawn(counted).size();
    const auto shared = build(table, drawn, false), apart = build(table, drawn, true);
    found += count(*shared);
    for (const int64_t batch : {1, 10}) {
      const auto bits = run(apart, 1, batch, outputs);
      const std::string what = "seed " + std::to_string(seed) + ", batch " + std::to_string(batch);
      CHECK_SAY(run(shared, 1 + static_cast<int>(seed % 3), batch, outputs) == bits, what);
      CHECK_SAY(run_guarded(*shared, batch) == bits[0], what + ", guarded");
    }
  }
  CHECK(found > 0);
}

}  // namespace openwork::test
