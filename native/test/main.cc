#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "kernels/table.h"
#include "test/harness.h"

namespace openwork::test {
namespace {
int failures_of_case = 0;
// One wrong kernel fails for hundreds of problems: the first few say enough.
constexpr int kShown = 10;
}  // namespace

std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

unsigned random_problems(unsigned usual) {
  const char* asked = std::getenv("OPENWORK_TEST_PROBLEMS");
  return asked ? static_cast<unsigned>(std::max(1.0, usual * 1e-4 * std::atof(asked))) : usual;
}

void fail(const char* file, int line, const char* condition, const std::string& detail) {
  if (++failures_of_case <= kShown) std::printf("  %s:%d: %s  %s\n", file, line, condition, detail.c_str());
}

static bool run(const Case& c) {
  failures_of_case = 0;
  try {
    c.run();
  } catch (const std::exception& e) {
    fail(__FILE__, __LINE__, "no exception", e.what());
  }
  std::printf("%s %s\n", failures_of_case ? "FAILED" : "ok    ", c.name);
  return failures_of_case == 0;
}

static bool is_on_machine(const std::string& isa) {
  const auto& tables = available_tables();
  return std::any_of(tables.begin(), tables.end(), [&](const KernelTable* table) { return table->isa == isa; });
}

// Every test goes through the instruction sets of the machine; says which of those built these are.
static void print_instruction_sets() {
  constexpr const char* kBuilt[] = {
#define OPENWORK_ISA(name, Symbol, lacks) #name,
#define OPENWORK_UNIT(name, Symbol, Base, emulates, lacks) #name,
#include "kernels/isas.inc"
#undef OPENWORK_ISA
  };
  std::string covered, others;
  for (const char* isa : kBuilt) (is_on_machine(isa) ? covered : others).append(" ").append(isa);
  std::printf("Instruction sets covered:%s; built, but not on this machine:%s\n", covered.c_str(),
              others.empty() ? " none" : others.c_str());
}

// Of the cases that the filter leaves, every `parts`-th from number `part` on, so that long and short ones fall to all parts.
static int run_all(const char* filter, int part, int parts) {
  int passed = 0, failed = 0, number = 0;
  for (const Case& c : cases())
    if (std::strstr(c.name, filter) && number++ % parts == part) ++(run(c) ? passed : failed);
  print_instruction_sets();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed || !passed;
}

static int list() {
  for (const Case& c : cases()) std::puts(c.name);
  return 0;
}

}  // namespace openwork::test

// openwork_test [--list | PART_OF_A_NAME [--part I/N]]
int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--list") == 0) return openwork::test::list();
  int part = 1, parts = 1;
  if (argc > 2 && (argc != 4 || std::strcmp(argv[2], "--part") != 0 || std::sscanf(argv[3], "%d/%d", &part, &parts) != 2 ||
                   part < 1 || part > parts)) {
    std::puts("Expected: openwork_test [--list | PART_OF_A_NAME [--part I/N]]");
    return 2;
  }
  return openwork::test::run_all(argc > 1 ? argv[1] : "", part - 1, parts);
}
