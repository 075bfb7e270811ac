// What the processor and the operating system offer.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace fastcodec {

struct CpuReport {
  std::string brand;
  // Instruction sets usable by a program: the processor has them and the system saves their state.
  std::vector<std::pair<std::string, bool>> features;
};

CpuReport ReportCpu();

}  // namespace fastcodec
