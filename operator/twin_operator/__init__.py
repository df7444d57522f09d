"""The operator of DoctorTwin and MinerPool: gather → plan → apply → report."""

from bettertherapy_api.first_process import end_on_sigterm

end_on_sigterm()
