// What the machine does at most, for the benchmarks.
#include "runtime/timing/peak.h"

#include "bind/arrays.h"

namespace openwork::bind {

namespace {

double peak(const std::string& type, const std::string& isa, int threads) {
  const nb::gil_scoped_release no_gil;
  return peak_rate(choose_table(isa), type_named(type), threads);
}

double read_bandwidth(int64_t bytes, const std::string& isa, int threads) {
  const nb::gil_scoped_release no_gil;
  return read_rate(choose_table(isa), bytes, threads);
}

}  // namespace

void bind_peak(nb::module_& m) {
  m.def("peak", &peak, nb::arg("type"), nb::arg("isa"), nb::arg("threads") = 1,
        "Operations a second (a multiplication and an addition are two) of the dot product of `type`, \"i8\", \"bf16\" or \"f32\", on\n"
        "registers alone: what no kernel of the instruction set can exceed. A few milliseconds. Raises ValueError.");
  m.def("read_bandwidth", &read_bandwidth, nb::arg("bytes"), nb::arg("isa"), nb::arg("threads") = 1,
        "Bytes a second that the threads read, each over and over from `bytes` bytes of its own. Raises ValueError.");
}

}  // namespace openwork::bind
