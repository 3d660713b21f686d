"""Report templates; generated reports land in this folder too."""
