"""The data plane: what runs beside and in front of the engines, and what trains their adapters."""

from bettertherapy_api.first_process import end_on_sigterm

end_on_sigterm()
