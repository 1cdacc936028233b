-- The health of a ConfigMap in Argo CD: of mountd's status ConfigMap it is the worst health that a pod has reported.
-- Argo CD gives a health check no string library, so each pod's health and line are two separate entries:
--   metadata.annotations["health.mountd/POD"] = Progressing    data[POD] = "switch cache_hub v23 → v24: warm 43 %"
-- A check must return a table: every other ConfigMap is Healthy, as without this check.
local labels = obj.metadata.labels or {}
if labels["app.kubernetes.io/component"] ~= "mountd-status" then
  return {status = "Healthy"}
end

local order = {"Unknown", "Degraded", "Missing", "Progressing", "Suspended", "Healthy"} -- worst first
local rank = {}
for number, health in ipairs(order) do
  rank[health] = number
end
local annotations = obj.metadata.annotations or {}
local pods = {}
for name in pairs(obj.data or {}) do
  local health = annotations["health.mountd/" .. name]
  if rank[health] == nil then
    health = "Unknown"
  end
  table.insert(pods, {name = name, health = health})
end
if #pods == 0 then
  return {status = "Progressing", message = "no pod has reported yet"}
end
table.sort(pods, function(one, other)
  if one.health ~= other.health then
    return rank[one.health] < rank[other.health]
  end
  return one.name < other.name
end)

-- Of many pods only the first ones have a line: those that are not well.
local shown = 20
local lines = {}
local more = {}
for number, pod in ipairs(pods) do
  if number <= shown then
    table.insert(lines, pod.name .. ": " .. obj.data[pod.name])
  else
    more[pod.health] = (more[pod.health] or 0) + 1
  end
end
for _, health in ipairs(order) do
  if more[health] ~= nil then
    table.insert(lines, "and " .. more[health] .. " more " .. health)
  end
end
return {status = pods[1].health, message = table.concat(lines, "\n")}
